//! What a release does with images, beyond naming them: for `dray check` and `dray export`.

use serde::{Deserialize, Serialize};

/// How a release behaves. A field without a value is not established for the distribution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Facts {
    /// The containerd version inside, `1.7.30`.
    pub containerd: Option<String>,
    /// The version that containerd drop-in files have to state: 2, or 3 from containerd 2 on.
    pub containerd_config: Option<u8>,
    /// What `k0s airgap list-images` prints.
    pub list_images: Option<ListImages>,
    /// Whether `k0s airgap bundle-artifacts` exists and looks at Windows versions.
    pub bundle_artifacts: Option<BundleArtifacts>,
    /// What is left out of the dynamic ClusterConfig object when k0s first creates it.
    pub strip_defaults: Option<StripDefaults>,
    /// Whether `spec.images.repository` may be applied twice without doubling the path.
    pub repository_idempotent: Option<bool>,
    /// Which platforms of a bundle the importer takes.
    pub import_matcher: Option<ImportMatcher>,
    /// Whether bundles may leave out blobs of other platforms.
    pub import_sparse: Option<bool>,
    /// Whether imported images are protected from the kubelet's garbage collection.
    pub import_pins: Option<bool>,
    /// Whether an image remembers the bundle it came from.
    pub import_records_source: Option<bool>,
    /// Whether bundles are imported as they appear, or only when the worker starts.
    pub import_watches: Option<bool>,
    /// Whether one unreadable bundle stops the worker.
    pub import_bad_file_is_fatal: Option<bool>,
    /// Whether the importer reaches containerd on Windows.
    pub import_on_windows: Option<bool>,
}

/// What `k0s airgap list-images` prints (k0s `pkg/airgap/images.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListImages {
    /// Ten references, both network providers, for any operating system.
    Fixed,
    /// The same, and with `--all` the push gateway.
    WithPushgateway,
    /// What one platform needs.
    PerPlatform,
}

/// What `k0s airgap bundle-artifacts` does (k0s `pkg/airgap/ociartifactsbundler.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BundleArtifacts {
    /// The command does not exist.
    None,
    /// On a Linux machine, the Windows version asked for is ignored.
    IgnoresOsVersion,
    /// The Windows version asked for is honoured.
    HonoursOsVersion,
}

/// Which default images k0s leaves out of the ClusterConfig object (k0s `StripDefaults`). Objects that exist are
/// never rewritten, by any release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StripDefaults {
    /// All or none: one deviation pins every image.
    WholeStruct,
    /// Each field by itself, even when the other half of the image is then missing.
    PerField,
    /// Each image, unless `spec.images.repository` is set.
    PerImage,
    /// Each image, also with `spec.images.repository`.
    #[serde(rename = "per-image+repository")]
    PerImageAndRepository,
}

/// Which platforms of a bundle containerd's importer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImportMatcher {
    /// The node's own platform.
    Strict,
    /// Also those that the node can run, such as arm/v7 on arm64.
    Loose,
}

/// Takes the fields that `$next` states, and the others from `$base`.
macro_rules! overlay {
    ($base:expr, $next:expr, $($field:ident),+ $(,)?) => {
        Facts { $($field: $next.$field.clone().or_else(|| $base.$field.clone()),)+ }
    };
}

impl Facts {
    /// These facts with those that `next` states in their place.
    #[must_use]
    pub(super) fn overlaid(&self, next: &Self) -> Self {
        overlay!(
            self,
            next,
            containerd,
            containerd_config,
            list_images,
            bundle_artifacts,
            strip_defaults,
            repository_idempotent,
            import_matcher,
            import_sparse,
            import_pins,
            import_records_source,
            import_watches,
            import_bad_file_is_fatal,
            import_on_windows,
        )
    }
}
