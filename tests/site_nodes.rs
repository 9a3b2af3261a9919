//! What dray writes for the nodes of a site, used by the real programs: containerd, podman and skopeo.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod support;

mod site_nodes {
    mod export;
    #[path = "../../src/site/fields.rs"]
    mod fields;
    mod node_config;
    mod prepull;
    mod upgrade;
}
