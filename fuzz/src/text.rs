//! Targets that read text: names, headers, paths of requests, definitions, manifests.

use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use dray::catalog::Catalog;
use dray::oci::{
    Digest, Document, ImageConfig, NodeKind, Platform, Reference, RepositoryName, Tag, WindowsBuild,
};
use dray::registry::{Endpoint, ManifestReference, Query, Wanted, parse_range};
use dray::resolve::{Definition, LockedFile};
use dray::select;

/// A digest that is read prints as what was read, and can name a file.
pub fn digest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert_eq!(digest.hex().len(), digest.algorithm().hex_len());
        assert!(digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}

/// What a reference prints is read as the same reference.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>().as_ref(), Ok(&reference));
    }
    if let Ok(name) = text.parse::<RepositoryName>() {
        assert_eq!(name.to_string().parse::<RepositoryName>().as_ref(), Ok(&name));
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.as_str(), text);
    }
}

/// What a platform or a node kind prints is read as the same, and never steers a terminal.
pub fn platform(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse::<Platform>().as_ref(), Ok(&platform));
        assert_eq!(platform.normalized(), platform);
        assert!(!platform.shown().chars().any(char::is_control));
    }
    if let Ok(kind) = text.parse::<NodeKind>() {
        assert_eq!(kind.to_string().parse::<NodeKind>().as_ref(), Ok(&kind));
    }
    if let Ok(build) = text.parse::<WindowsBuild>() {
        assert_eq!(build.to_string().parse::<WindowsBuild>().as_ref(), Ok(&build));
    }
}

/// A document keeps its bytes, and every client finds its way through an index from outside.
pub fn manifest(data: &[u8]) {
    let _ = ImageConfig::parse(data).map(|config| config.platform());
    let Ok(document) = Document::parse(None, Bytes::copy_from_slice(data)) else { return };
    assert_eq!(&document.raw()[..], data);
    assert!(document.descriptor().digest.matches(data));
    let again = Document::parse(Some(document.media_type()), document.raw().clone());
    assert!(again.is_ok_and(|again| again.media_type() == document.media_type()));
    let Document::Index(index) = document else { return };
    let entries = index.manifests;
    for host in ["windows(10.0.26100)/amd64", "linux/arm/v7", "linux/amd64"] {
        let Ok(host) = host.parse() else { continue };
        for band in select::bands() {
            let choice = band.choose(&host, &entries);
            assert!(choice.picks.is_none_or(|pick| choice.fetches.contains(&pick)));
            assert!(choice.fetches.iter().all(|fetched| *fetched < entries.len()));
        }
    }
}

/// A definition that is accepted can be locked: it names kinds of nodes, and every file in it has an address that a site
/// can serve.
pub fn definition(data: &[u8]) {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Image lists are files beside the definition, and an absolute path would be any file of this machine.
    if text.to_ascii_lowercase().contains("imagelists") || text.contains('\\') {
        return;
    }
    let catalog = CATALOG.get_or_init(|| Catalog::builtin().expect("the catalog is consistent"));
    let Ok(definition) = Definition::parse(Path::new("/nonexistent/bundle.yaml"), text, catalog) else {
        return;
    };
    assert!(!definition.nodes.is_empty());
    for image in &definition.images {
        assert_eq!(image.reference.to_string().parse().as_ref(), Ok(&image.reference));
    }
    for wanted in &definition.files {
        let file = LockedFile { url: wanted.url.to_string(), digest: wanted.digest.clone(), size: 0 };
        let (host, path) = file.address().unwrap_or_else(|| panic!("{} has no place at a site", wanted.url));
        assert!(!host.contains('/') && !path.is_empty());
    }
}

/// An endpoint is found again under the path that names it, and a name from a path is a name.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    let query = Query::parse(query);
    assert!(query.tags.len() <= text.len());
    let Ok(endpoint) = Endpoint::parse(path) else { return };
    let named = match &endpoint {
        Endpoint::Version => "/v2/".to_owned(),
        Endpoint::Catalog => "/v2/_catalog".to_owned(),
        Endpoint::Tags(name) => format!("/v2/{name}/tags/list"),
        Endpoint::Manifest(name, ManifestReference::Tag(tag)) => format!("/v2/{name}/manifests/{tag}"),
        Endpoint::Manifest(name, ManifestReference::Digest(digest)) => {
            format!("/v2/{name}/manifests/{digest}")
        }
        Endpoint::Blob(name, digest) => format!("/v2/{name}/blobs/{digest}"),
        Endpoint::Uploads(name) => format!("/v2/{name}/blobs/uploads/"),
        Endpoint::Upload(name, id) => format!("/v2/{name}/blobs/uploads/{}", id.as_str()),
        Endpoint::Referrers(name, digest) => format!("/v2/{name}/referrers/{digest}"),
    };
    assert!(!named.split('/').any(|segment| segment == ".." || segment == "."), "{named}");
    assert_eq!(Endpoint::parse(&named).as_ref(), Ok(&endpoint), "{named}");
}

/// A part that is asked for lies in the blob. The first eight bytes are the size of the blob.
pub fn range(data: &[u8]) {
    let Some((size, value)) = data.split_first_chunk::<8>() else { return };
    let (size, value) = (u64::from_le_bytes(*size), std::str::from_utf8(value).ok());
    match parse_range(value, size) {
        Wanted::Part { start, end } => assert!(start < end && end <= size),
        Wanted::Unsatisfiable => assert!(value.is_some()),
        Wanted::Whole => {}
    }
}

/// A piece of an upload has a beginning and an end, in this order, and its length can be told.
pub fn content_range(data: &[u8]) {
    if let Some((first, last)) = dray::registry::fuzzing::content_range(data) {
        assert!(first <= last && last - first < u64::MAX);
        assert_eq!(
            dray::registry::fuzzing::content_range(format!("{first}-{last}").as_bytes()),
            Some((first, last))
        );
    }
}

/// What is read from a header is what such a header is made of.
pub fn authorization(data: &[u8]) {
    if let Some((user, password)) = dray::registry::fuzzing::authorization(data) {
        assert!(!user.contains(':'));
        let again = dray::registry::fuzzing::basic(&user, &password);
        assert_eq!(dray::registry::fuzzing::authorization(again.as_bytes()), Some((user, password)));
    }
}
