//! From a request to the endpoint that answers it.

use std::net::IpAddr;
use std::time::Instant;

use http::{HeaderValue, Method, Response, StatusCode, header};
use jiff::Timestamp;

use crate::oci::MAX_MANIFEST_BYTES;

use super::access::{Ending, Told, UnderWay};
use super::answer::text;
use super::body::Body;
use super::error::{ApiError, Code, blocking};
use super::lookup::Lookup;
use super::metrics::Route;
use super::naming::Candidates;
use super::path::{Endpoint, PathError};
use super::receive::Incoming;
use super::request::Request;
use super::service::Service;
use super::users::Client;
use super::{files, listing, pull, upload, write};

const READS: &str = "GET, HEAD";
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"dray\", charset=\"UTF-8\"");

impl Service {
    /// Answers a request, and has it counted and logged.
    pub(super) async fn answer(
        &self,
        parts: http::request::Parts,
        peer: IpAddr,
        body: Incoming,
    ) -> Response<Body> {
        let (began, under_way) = (Instant::now(), UnderWay::new(&self.metrics));
        let request = Request::new(parts, peer);
        let method = request.method.clone();
        let endpoint = Endpoint::parse(&request.path);
        let route = endpoint.as_ref().map_or(Route::Other, Route::of);
        let client = match &self.users {
            Some(users) => users.identify(request.headers.get(header::AUTHORIZATION)).await,
            None => Client::Anonymous,
        };
        let told = self.log.is_some().then(|| told(&request, &client));
        if !request.is_read() {
            self.forget_checks(&request, &endpoint).await;
        }
        let result = match self.admit(&request, &endpoint, &client) {
            Ok(()) => self.route(request, endpoint, body).await,
            Err(error) => Err(error),
        };
        let mut response = result.unwrap_or_else(|error| error.into_response(&method));
        let (log, status) = (self.log.clone(), response.status().as_u16());
        response.body_mut().end_with(Ending { under_way, log, route, began, status, bytes: 0, told });
        response
    }

    /// Whether `client` may do what it asks for.
    fn admit(
        &self,
        request: &Request,
        endpoint: &Result<Endpoint, PathError>,
        client: &Client,
    ) -> Result<(), ApiError> {
        if self.users.is_none() || matches!(request.path.as_str(), "/healthz" | "/readyz") {
            return Ok(());
        }
        let must_log_in = match endpoint {
            // Clients learn here, and some only here, that there is something to log in to.
            Ok(Endpoint::Version) => self.private || self.push.is_some(),
            _ => self.private || !request.is_read(),
        };
        let message = match client {
            Client::User(_) => return Ok(()),
            Client::Anonymous if !must_log_in => return Ok(()),
            Client::Anonymous => "log in first",
            Client::Impostor => {
                tracing::warn!("a wrong user or password from {}", request.peer);
                "the user or the password is wrong"
            }
        };
        let error = ApiError::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, message);
        Err(error.with_header(header::WWW_AUTHENTICATE, CHALLENGE))
    }

    async fn route(
        &self,
        mut request: Request,
        endpoint: Result<Endpoint, PathError>,
        body: Incoming,
    ) -> Result<Response<Body>, ApiError> {
        if self.may_be_extra(&request) {
            let service = self.clone();
            let (answer, same) = blocking(move || Ok((service.extra(&request)?, request))).await?;
            request = same;
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
        if request.is_read() && files::is_one(&request.path) {
            let service = self.clone();
            return blocking(move || service.file(&request)).await;
        }
        if request.is_read()
            && let Some(answer) = self.about(&request).await
        {
            return answer;
        }
        let (method, ns) = (request.method.clone(), request.query.ns.clone());
        let result = match endpoint {
            Ok(endpoint) => self.dispatch(request, endpoint, body).await,
            Err(error) => Err(error.into()),
        };
        let mut response = result.unwrap_or_else(|error| error.into_response(&method));
        let headers = response.headers_mut();
        headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
        if let Some(ns) = ns.and_then(|ns| HeaderValue::from_str(&ns).ok()) {
            headers.insert("oci-namespace", ns);
        }
        Ok(response)
    }

    async fn dispatch(
        &self,
        request: Request,
        endpoint: Endpoint,
        body: Incoming,
    ) -> Result<Response<Body>, ApiError> {
        match (&endpoint, &self.uploads) {
            // Boxed, so that reads, of which there are more, need not move what only changes need.
            _ if !request.is_read() => return Box::pin(self.change(request, endpoint, body)).await,
            (Endpoint::Upload(name, id), Some(uploads)) => return upload::status(uploads, name, id).await,
            _ => {}
        }
        match &endpoint {
            Endpoint::Version => return self.read(&request, &endpoint),
            // A few small files of which the name is known are read quicker than another thread is woken.
            Endpoint::Manifest(name, reference) => {
                let names = self.naming.candidates(request.asked(name)).names;
                let candidates = Candidates { names, paths: Vec::new() };
                let lookup = Lookup { content: &*self.content, candidates: &candidates };
                match pull::manifest(&request, &lookup, reference) {
                    // It may be under any host, which takes a look through all repositories; and what is missing is noted
                    // on the disk.
                    Err(error) if error.status() == StatusCode::NOT_FOUND => {}
                    found => return found.inspect(|response| self.note_read(&request, response)),
                }
            }
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
            (Method::POST, Endpoint::Uploads(name)) => upload::begin(uploads, &request, &name, body).await,
            (Method::PATCH | Method::PUT, Endpoint::Upload(name, id)) => {
                upload::add(uploads, &request, &name, &id, body).await
            }
            (Method::DELETE, Endpoint::Upload(name, id)) => upload::cancel(uploads, &name, &id).await,
            (Method::PUT, Endpoint::Manifest(name, reference)) => {
                let bytes = body.whole(MAX_MANIFEST_BYTES).await?;
                let service = self.clone();
                blocking(move || {
                    let pushed = write::put_manifest(&store, &request, &name, &reference, &bytes)?;
                    service.forget_image(&request, &name, &reference);
                    Ok(pushed)
                })
                .await
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
        let candidates = match endpoint {
            Endpoint::Tags(name)
            | Endpoint::Manifest(name, _)
            | Endpoint::Blob(name, _)
            | Endpoint::Referrers(name, _)
            | Endpoint::Uploads(name)
            | Endpoint::Upload(name, _) => self.naming.candidates(request.asked(name)),
            Endpoint::Version | Endpoint::Catalog => Candidates { names: Vec::new(), paths: Vec::new() },
        };
        let lookup = Lookup { content: &*self.content, candidates: &candidates };
        match endpoint {
            // Yes, this is a registry.
            Endpoint::Version => Ok(text(&request.method, "application/json", "{}")),
            Endpoint::Catalog => listing::catalog(request, &lookup),
            Endpoint::Tags(_) => listing::tags(request, &lookup),
            Endpoint::Manifest(name, reference) => pull::manifest(request, &lookup, reference)
                .inspect(|response| self.note_read(request, response))
                .map_err(|error| self.manifest_missed(request, &lookup, name, reference, error)),
            Endpoint::Blob(_, digest) => pull::blob(request, &lookup, digest, self.push.as_ref())
                .map_err(|error| self.blob_missed(request, &lookup, digest, error)),
            Endpoint::Referrers(_, subject) => listing::referrers(request, &lookup, subject),
            Endpoint::Uploads(_) | Endpoint::Upload(..) => Err(ApiError::method("POST")),
        }
    }
}

fn told(request: &Request, client: &Client) -> Told {
    Told {
        time: Timestamp::now(),
        client: request.peer,
        user: match client {
            Client::User(user) => Some(user.clone()),
            Client::Anonymous | Client::Impostor => None,
        },
        method: request.method.clone(),
        target: request.target.clone(),
        user_agent: request.user_agent().to_owned(),
    }
}
