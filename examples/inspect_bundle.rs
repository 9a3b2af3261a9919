//! What is in a bundle, and whether one of the given keys signed it.
//!
//! ```console
//! $ cargo run --example inspect_bundle -- plant.tar release.pub
//! ```

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::path::PathBuf;

use dray::bundle::Bundle;
use dray::trust::{Policy, PublicKey};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let path = arguments.next().ok_or("usage: inspect_bundle BUNDLE PUB…")?;
    let bundle = Bundle::open(&path)?;
    println!("{} is {} {}", path.display(), bundle.lock().name, bundle.index().digest);
    for image in &bundle.lock().images {
        println!("  {} {} for {} kinds of node", image.reference, image.root.digest, image.nodes.len());
    }
    let pems = arguments.map(std::fs::read_to_string).collect::<Result<Vec<_>, _>>()?;
    if !pems.is_empty() {
        let keys = pems.iter().map(|pem| PublicKey::from_pem(pem)).collect::<Result<Vec<_>, _>>()?;
        let signed_by = bundle.check_signatures(&Policy::new(keys, 1)?)?;
        println!("signed by {signed_by:?}");
    }
    Ok(())
}
