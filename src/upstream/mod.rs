//! Reading from registries, and plain files from web servers: where a host's images are read from, who asks, and what to do
//! when it does not work the first time. And pushing into registries, in the same way.
//!
//! Everything that comes from a registry is bounded in size and checked against the digest it was asked by, except for
//! streamed blobs, whose reader hashes them. Connections that break are resumed; failures that may pass are tried
//! again after a pause; everything else becomes an [`UpstreamError`] that names the image and the host.
//!
//! The module reads neither the environment nor the home folder: credentials and endpoints come in as [`Options`].
//! Two exceptions are conventions of the network rather than of this program: proxies are taken from the environment,
//! and credential helpers are found along `PATH`.

mod auth;
mod blob;
mod body;
mod challenge;
mod client;
mod credential;
mod credentials;
mod endpoint;
mod error;
mod file;
mod header;
mod helper;
mod host;
mod manifest;
mod pages;
mod push;
mod redirect;
mod referrers;
mod request;
mod retry;
mod tags;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use url::Url;

pub use self::blob::{BlobStream, MAX_SMALL_BLOB};
pub use self::client::{Timeouts, is_own_agent};
pub use self::credentials::{CredentialError, CredentialStore};
pub use self::endpoint::{EndpointError, parse_endpoint};
pub use self::error::{Identity, Missing, Problem, Refusal, SetupError, UpstreamError};
pub use self::helper::HelperError;
pub use self::push::{Accepted, Pusher, ReadAt};
pub use self::retry::RetryPolicy;

use self::auth::Auth;
use self::client::Client;
use self::endpoint::Endpoints;
use self::host::Hosts;
use crate::oci::{Descriptor, Digest, Document, Reference, RepositoryName};

/// How to reach registries.
#[derive(Clone, Debug)]
pub struct Options {
    /// Hosts whose images are read from somewhere else; see [`parse_endpoint`].
    pub endpoints: BTreeMap<String, Url>,
    /// Hosts that are spoken to without TLS. There are no others, not even on the loopback network.
    pub plain_http: BTreeSet<String>,
    /// PEM files of certificate authorities that are trusted besides the system's.
    pub ca_files: Vec<PathBuf>,
    /// Who to be at which registry.
    pub credentials: CredentialStore,
    /// Requests to one server at the same time.
    pub per_host: usize,
    /// How long to wait for a server.
    pub timeouts: Timeouts,
    /// How often to try.
    pub retry: RetryPolicy,
}

impl Default for Options {
    /// No mirrors, no credentials, TLS everywhere, six requests at a time.
    fn default() -> Self {
        Self {
            endpoints: BTreeMap::new(),
            plain_http: BTreeSet::new(),
            ca_files: Vec::new(),
            credentials: CredentialStore::new(),
            per_host: 6,
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
        }
    }
}

/// Reads from registries. Clones share connections, tokens and limits.
#[derive(Clone, Debug)]
pub struct Upstream {
    shared: Arc<Shared>,
}

/// What all requests share.
#[derive(Debug)]
struct Shared {
    client: Arc<Client>,
    endpoints: Endpoints,
    auth: Auth,
    hosts: Hosts,
    retry: RetryPolicy,
}

impl Upstream {
    /// A reader with these options; nothing is sent yet.
    pub fn new(options: Options) -> Result<Self, UpstreamError> {
        let client = Arc::new(Client::new(options.timeouts, &options.ca_files)?);
        let endpoints = Endpoints::new(options.endpoints, &options.plain_http).map_err(SetupError::from)?;
        Ok(Self {
            shared: Arc::new(Shared {
                auth: Auth::new(Arc::clone(&client), options.credentials),
                client,
                endpoints,
                hosts: Hosts::new(options.per_host),
                retry: options.retry,
            }),
        })
    }
}

/// A manifest or index as it was read.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Its digest, computed from the bytes.
    pub digest: Digest,
    /// The document with its bytes.
    pub document: Document,
}

/// Where documents come from while references are resolved: registries, or a stand-in for them.
pub trait Manifests: Sync {
    /// The manifest or index that `reference` means; by its digest where it has one.
    fn manifest(&self, reference: &Reference) -> impl Future<Output = Result<Fetched, UpstreamError>> + Send;

    /// The manifest or index with this digest in the repository `name`.
    fn manifest_by_digest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> impl Future<Output = Result<Fetched, UpstreamError>> + Send;

    /// All of a blob of at most [`MAX_SMALL_BLOB`] bytes, verified.
    fn small_blob(
        &self,
        name: &RepositoryName,
        blob: &Descriptor,
    ) -> impl Future<Output = Result<Bytes, UpstreamError>> + Send;

    /// As `manifest_by_digest`, for what can be done without: fails at once when the registry limits the rate of requests.
    fn spare_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> impl Future<Output = Result<Fetched, UpstreamError>> + Send {
        self.manifest_by_digest(name, digest)
    }

    /// How many requests the registry of `name` still lets through, as far as it has said so far: 0 after it has refused
    /// one, `None` if it has said nothing.
    fn remaining_requests(&self, _name: &RepositoryName) -> Option<u64> {
        None
    }

    /// The size of a blob in bytes.
    fn blob_size(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> impl Future<Output = Result<u64, UpstreamError>> + Send;

    /// What refers to the manifest `subject` of the repository `name`.
    fn referrers(
        &self,
        name: &RepositoryName,
        subject: &Digest,
    ) -> impl Future<Output = Result<Vec<Descriptor>, UpstreamError>> + Send;

    /// Returns the size of the file at `url` in bytes.
    fn file_size(&self, url: &Url) -> impl Future<Output = Result<u64, UpstreamError>> + Send;
}

impl Manifests for Upstream {
    async fn manifest(&self, reference: &Reference) -> Result<Fetched, UpstreamError> {
        self.manifest(reference).await
    }

    async fn manifest_by_digest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Fetched, UpstreamError> {
        self.manifest_by_digest(name, digest).await
    }

    async fn small_blob(&self, name: &RepositoryName, blob: &Descriptor) -> Result<Bytes, UpstreamError> {
        self.small_blob(name, blob).await
    }

    async fn spare_manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<Fetched, UpstreamError> {
        self.spare_manifest(name, digest).await
    }

    fn remaining_requests(&self, name: &RepositoryName) -> Option<u64> {
        self.remaining_requests(name)
    }

    async fn blob_size(&self, name: &RepositoryName, digest: &Digest) -> Result<u64, UpstreamError> {
        self.blob_size(name, digest).await
    }

    async fn referrers(
        &self,
        name: &RepositoryName,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, UpstreamError> {
        self.referrers(name, subject).await
    }

    async fn file_size(&self, url: &Url) -> Result<u64, UpstreamError> {
        self.file_size(url).await
    }
}
