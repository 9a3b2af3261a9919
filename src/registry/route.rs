//! From a request to the endpoint that answers it.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::oci::{MAX_MANIFEST_BYTES, Reference, RepositoryName};
use crate::store::{Content, Store};

use super::body::Body;
use super::error::{ApiError, Code};
use super::lookup::Lookup;
use super::naming::{Asked, Naming};
use super::path::{Endpoint, ManifestReference, Query};
use super::receive::{self, Incoming};
use super::upload::Uploads;
use super::wants::Wants;
use super::{listing, pull, write};

const READS: &str = "GET, HEAD";

/// What every request is answered from.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) content: Arc<dyn Content>,
    pub(super) naming: Arc<Naming>,
    /// Where pushes go; none on a registry that is read-only.
    pub(super) push: Option<Store>,
    pub(super) uploads: Option<Arc<Uploads>>,
    pub(super) wants: Option<Arc<Wants>>,
}

/// A request without its body.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    /// The path as it was sent.
    pub(super) path: String,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
    host: Option<String>,
    peer: IpAddr,
}

impl Request {
    pub(super) fn new(parts: http::request::Parts, peer: IpAddr) -> Self {
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| parts.uri.authority().map(http::uri::Authority::as_str));
        Self {
            host: host.map(str::to_ascii_lowercase),
            path: parts.uri.path().to_owned(),
            query: Query::parse(parts.uri.query()),
            method: parts.method,
            headers: parts.headers,
            peer,
        }
    }

    fn asked<'a>(&'a self, name: &'a RepositoryName) -> Asked<'a> {
        Asked { name, ns: self.query.ns.as_deref(), host: self.host.as_deref() }
    }

    fn is_read(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}

impl Service {
    /// Answers a request.
    pub(super) async fn answer(&self, request: Request, body: Incoming) -> Response<Body> {
        let method = request.method.clone();
        match request.path.as_str() {
            "/healthz" => return probe(&method, true, "ok"),
            "/readyz" => return self.ready(&method),
            "/api/v1/wants" | "/api/v1/wants.txt" if request.is_read() => {
                let service = self.clone();
                let answer = blocking(move || Ok(service.wants(&request))).await;
                return answer.unwrap_or_else(|error| error.into_response(&method));
            }
            _ => {}
        }
        let ns = request.query.ns.clone();
        let result = match Endpoint::parse(&request.path) {
            Ok(endpoint) => self.dispatch(request, endpoint, body).await,
            Err(error) => Err(error.into()),
        };
        let mut response = result.unwrap_or_else(|error| error.into_response(&method));
        let headers = response.headers_mut();
        headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
        if let Some(ns) = ns.and_then(|ns| HeaderValue::from_str(&ns).ok()) {
            headers.insert("oci-namespace", ns);
        }
        response
    }

    async fn dispatch(
        &self,
        request: Request,
        endpoint: Endpoint,
        body: Incoming,
    ) -> Result<Response<Body>, ApiError> {
        match (&endpoint, &self.uploads) {
            _ if !request.is_read() => return self.change(request, endpoint, body).await,
            (Endpoint::Upload(name, id), Some(uploads)) => return uploads.status(name, id).await,
            _ => {}
        }
        let service = self.clone();
        // What is looked up comes from the disk, which may take its time.
        blocking(move || service.read(&request, &endpoint)).await
    }

    /// Answers a request that changes something.
    async fn change(
        &self,
        request: Request,
        endpoint: Endpoint,
        body: Incoming,
    ) -> Result<Response<Body>, ApiError> {
        let (Some(store), Some(uploads)) = (self.push.clone(), &self.uploads) else {
            return Err(ApiError::method(READS));
        };
        match (request.method.clone(), endpoint) {
            (Method::POST, Endpoint::Uploads(name)) => uploads.begin(&request, &name, body).await,
            (Method::PATCH, Endpoint::Upload(name, id)) => uploads.append(&request, &name, &id, body).await,
            (Method::PUT, Endpoint::Upload(name, id)) => uploads.close(&request, &name, &id, body).await,
            (Method::DELETE, Endpoint::Upload(name, id)) => uploads.cancel(&name, &id).await,
            (Method::PUT, Endpoint::Manifest(name, reference)) => {
                let bytes = receive::whole(body, MAX_MANIFEST_BYTES).await?;
                blocking(move || write::put_manifest(&store, &request, &name, &reference, &bytes)).await
            }
            (Method::DELETE, Endpoint::Manifest(name, reference)) => {
                blocking(move || write::delete_manifest(&store, &name, &reference)).await
            }
            (Method::DELETE, Endpoint::Blob(name, digest)) => {
                blocking(move || write::delete_blob(&store, &name, &digest)).await
            }
            (_, Endpoint::Uploads(_)) => Err(ApiError::method("POST")),
            (_, Endpoint::Upload(..)) => Err(ApiError::method("GET, PATCH, PUT, DELETE")),
            (_, Endpoint::Manifest(..)) => Err(ApiError::method("GET, HEAD, PUT, DELETE")),
            (_, Endpoint::Blob(..)) => Err(ApiError::method("GET, HEAD, DELETE")),
            (_, Endpoint::Version | Endpoint::Catalog | Endpoint::Tags(_) | Endpoint::Referrers(..)) => {
                Err(ApiError::method(READS))
            }
        }
    }

    fn read(&self, request: &Request, endpoint: &Endpoint) -> Result<Response<Body>, ApiError> {
        let look = |name| self.naming.candidates(request.asked(name));
        let candidates = match endpoint {
            Endpoint::Tags(name)
            | Endpoint::Manifest(name, _)
            | Endpoint::Blob(name, _)
            | Endpoint::Referrers(name, _)
            | Endpoint::Uploads(name)
            | Endpoint::Upload(name, _) => look(name),
            Endpoint::Version | Endpoint::Catalog => {
                super::Candidates { names: Vec::new(), paths: Vec::new() }
            }
        };
        let lookup = Lookup { content: &*self.content, candidates: &candidates };
        match endpoint {
            Endpoint::Version => Ok(version(&request.method)),
            Endpoint::Catalog => listing::catalog(request, &lookup),
            Endpoint::Tags(_) => listing::tags(request, &lookup),
            Endpoint::Manifest(name, reference) => pull::manifest(request, &lookup, reference)
                .inspect_err(|error| self.note_miss(request, name, reference, error)),
            Endpoint::Blob(_, digest) => pull::blob(request, &lookup, digest),
            Endpoint::Referrers(_, subject) => listing::referrers(request, &lookup, subject),
            Endpoint::Uploads(_) | Endpoint::Upload(..) => Err(ApiError::method("POST")),
        }
    }

    /// Remembers that a manifest was asked for in vain.
    fn note_miss(
        &self,
        request: &Request,
        name: &RepositoryName,
        reference: &ManifestReference,
        error: &ApiError,
    ) {
        let Some(wants) = self.wants.as_ref().filter(|_| error.status() == StatusCode::NOT_FOUND) else {
            return;
        };
        let Some(name) = self.naming.probable(request.asked(name)) else { return };
        let reference = match reference {
            ManifestReference::Tag(tag) => Reference::new(name, Some(tag.clone()), None),
            ManifestReference::Digest(digest) => Reference::new(name, None, Some(digest.clone())),
        };
        let agent = request.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        wants.note(reference, request.peer, agent.unwrap_or_default());
    }

    /// `GET /api/v1/wants`, and the same as a list of images.
    fn wants(&self, request: &Request) -> Response<Body> {
        let wants = self.wants.as_ref().map(|wants| wants.unmet(&*self.content)).unwrap_or_default();
        if request.path == "/api/v1/wants.txt" {
            let lines: String =
                wants.iter().flat_map(|w| [w.reference.to_string(), "\n".to_owned()]).collect();
            return text(&request.method, "text/plain; charset=utf-8", &lines);
        }
        text(&request.method, "application/json", &serde_json::json!({ "wants": wants }).to_string())
    }

    fn ready(&self, method: &Method) -> Response<Body> {
        match self.content.damaged().len() {
            0 => probe(method, true, "ready"),
            1 => probe(method, false, "1 blob is damaged; run `dray scrub`"),
            n => probe(method, false, &format!("{n} blobs are damaged; run `dray scrub`")),
        }
    }
}

/// Does what blocks on the disk on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(ApiError::internal(panic)))
}

/// The answer to `/v2/`: yes, this is a registry.
fn version(method: &Method) -> Response<Body> {
    let mut response = text(method, "application/json", "{}");
    *response.status_mut() = StatusCode::OK;
    response
}

fn probe(method: &Method, good: bool, message: &str) -> Response<Body> {
    let mut response = text(method, "text/plain; charset=utf-8", &format!("{message}\n"));
    if !good {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

fn text(method: &Method, content_type: &'static str, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    if method != Method::HEAD {
        *response.body_mut() = Body::from(text.as_bytes().to_vec());
    }
    response
}

/// A header's value; what cannot be one came from a file that is not as it was written.
pub(super) fn header_value(text: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(text).map_err(|_| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, "the registry's content is not valid")
    })
}
