//! The images that a release needs on the nodes of a site, from the catalog, without a network.
//!
//! ```console
//! $ cargo run --example needs
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::error::Error;

use dray::catalog::Catalog;

fn main() -> Result<(), Box<dyn Error>> {
    let catalog = Catalog::builtin()?;
    let kinds = [catalog.node_kind("linux/amd64")?, catalog.node_kind("windows/ltsc2022")?];
    let needs = catalog.needs(&"k0s@v1.36.3+k0s.2".parse()?, &["calico".to_owned()], &kinds)?;
    for need in &needs.images {
        let nodes: Vec<String> = need.nodes.iter().map(ToString::to_string).collect();
        println!("{:<64} {}", need.reference.to_string(), nodes.join(", "));
    }
    for problem in &needs.problems {
        eprintln!("{}: {}", problem.severity.as_str(), problem.message);
    }
    Ok(())
}
