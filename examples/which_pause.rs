//! Which manifest of a pause image each container runtime takes on Windows Server 2025.
//!
//! ```console
//! $ cargo run --example which_pause
//! ```

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use dray::oci::{Descriptor, NodeKind, media_type};
use dray::select;

fn main() -> Result<(), Box<dyn Error>> {
    let node: NodeKind = "windows(10.0.26100)/amd64".parse()?;
    let index = ["linux/amd64", "windows(10.0.17763.7919)/amd64", "windows(10.0.20348.4294)/amd64"];
    let mut entries = index.map(|text| Descriptor::of(media_type::OCI_MANIFEST, text.as_bytes()));
    for (entry, platform) in entries.iter_mut().zip(index) {
        entry.platform = Some(platform.parse()?);
    }
    for band in select::node_bands(&node, &[]) {
        let choice = band.choose(&node.platform(), &entries);
        println!("{:<28} {}", band.label(), choice.reason);
    }
    Ok(())
}
