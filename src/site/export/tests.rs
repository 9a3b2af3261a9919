//! Names and refusals; what archives hold is tested with the programs that import them.

use std::time::Duration;

use super::*;
use crate::oci::{Descriptor, RepositoryName, TagMeaning};
use crate::store::Store;

fn kind(text: &str) -> NodeKind {
    text.parse().unwrap()
}

#[test]
fn file_names_stay_the_same_and_are_imported() {
    for (importer, node, name) in [
        (Importer::K0s, "linux/amd64", "dray-k0s-linux-amd64.tar"),
        (Importer::K3s, "linux/arm/v7", "dray-k3s-linux-arm-v7.tar"),
        (Importer::Rke2, "windows(10.0.20348)/amd64", "dray-rke2-windows-10.0.20348-amd64.tar"),
    ] {
        assert_eq!(importer.file_name(&kind(node)), name);
        assert_eq!(importer.form(name), Some(Form::Tar));
    }
    for (importer, name, form) in [
        (Importer::K0s, "anything", Some(Form::Tar)),
        (Importer::K0s, "images.tar.zst", None),
        (Importer::K3s, "images.tar.zst", Some(Form::Zstd)),
        (Importer::Rke2, "images.tzst", Some(Form::Zstd)),
        (Importer::K3s, "images.zst", None),
        (Importer::K3s, "images", None),
        (Importer::K3s, ".tar", None),
        (Importer::K3s, "images.tar.sha256", None),
        (Importer::K3s, "images.TAR", None),
    ] {
        assert_eq!(importer.form(name), form, "{importer} {name}");
    }
}

#[test]
fn refusals_say_what_is_wrong() {
    let catalog = Catalog::builtin().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(directory.path()).unwrap();
    let refused = |importer, release: &str, node: &str, images: &[Reference]| {
        let (release, kind) = (release.parse().unwrap(), kind(node));
        let request = Request { importer, release: &release, with: &[], kind: &kind, images, mtime: 0 };
        plan(&request, &catalog, &store).unwrap_err()
    };
    let linux = "linux/amd64";
    let other = refused(Importer::K3s, "k0s@v1.36.3+k0s.2", linux, &[]);
    assert!(matches!(other, ExportError::OtherDistribution { .. }), "{other}");
    let windows = refused(Importer::K3s, "k3s@v1.36.1+k3s1", "windows(10.0.20348)/amd64", &[]);
    assert!(matches!(windows, ExportError::NothingNeeded { .. }), "{windows}");
    let unknown = refused(Importer::K0s, "k0s@v1.2.3", linux, &[]);
    assert!(matches!(unknown, ExportError::Catalog(_)), "{unknown}");
    let digest = format!("quay.io/x/y@{}", Digest::sha256(b"")).parse().unwrap();
    let untagged = refused(Importer::Rke2, "rke2@v1.36.3+rke2r1", linux, &[digest]);
    assert!(matches!(untagged, ExportError::NoTag(..)), "{untagged}");
    let empty = refused(Importer::K0s, "k0s@v1.36.3+k0s.2", linux, &[]);
    assert!(matches!(&empty, ExportError::Missing(images) if images.len() > 5), "{empty}");
    assert!(empty.to_string().contains("\n  quay.io/k0sproject/"), "{empty}");
}

#[test]
fn pinned_image_has_no_tag_that_means_another() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(directory.path()).unwrap();
    let name: RepositoryName = "quay.io/x/y".parse().unwrap();
    let (own, other) = (Descriptor::of("m", b"own"), Descriptor::of("m", b"other"));
    let writer = store.writer("test", Duration::ZERO).unwrap();
    let mut batch = writer.batch();
    batch.add_meaning(&name, &"1".parse().unwrap(), TagMeaning::Pinned(own.clone())).unwrap();
    batch.add_meaning(&name, &"2".parse().unwrap(), TagMeaning::Unpinned(other)).unwrap();
    batch.add_meaning(&name, &"3".parse().unwrap(), TagMeaning::Disputed).unwrap();
    batch.commit().unwrap();
    let digest = &own.digest;
    for (given, imported) in [
        (format!("{name}:1@{digest}"), format!("{name}:1@{digest}")),
        (format!("{name}:2@{digest}"), format!("{name}@{digest}")),
        (format!("{name}:3@{digest}"), format!("{name}@{digest}")),
        (format!("{name}:4@{digest}"), format!("{name}@{digest}")),
        (format!("{name}:2"), format!("{name}:2")),
    ] {
        assert_eq!(imported_as(&store, &given.parse().unwrap()).unwrap().to_string(), imported);
    }
}
