//! Plain files over HTTP, under the path that they have upstream, and a checksum beside each.
//!
//! `/files/<host>/<path>` names a file exactly; `/files/<path>` is enough as long as one host has it, or all that have it
//! agree on the content. Checksums are the bare hexadecimal digits, as `dl.k8s.io` gives them.

use http::{HeaderValue, Method, Response, header};
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::oci::{Algorithm, Digest};
use crate::store::{Blob, HostedFile};

use super::answer::text;
use super::body::Body;
use super::deliver::{ASK_AGAIN, BINARY, describe, send};
use super::error::{ApiError, Code};
use super::request::Request;
use super::service::Service;

const PREFIX: &str = "/files/";
/// Serves every Kubernetes release under two paths: with `release/` in front and without.
const KUBERNETES: &str = "dl.k8s.io";

/// Whether a path is that of a file.
pub(super) fn is_one(path: &str) -> bool {
    path.starts_with(PREFIX)
}

impl Service {
    /// `GET` and `HEAD` of a file or of its checksum.
    pub(super) fn file(&self, request: &Request) -> Result<Response<Body>, ApiError> {
        let path = percent_decode_str(request.path.strip_prefix(PREFIX).unwrap_or_default()).decode_utf8();
        let path = path.map_err(|_| ApiError::bad_request(Code::NameInvalid, "the path is not UTF-8"))?;
        if let Some(file) = self.find(&path)? {
            return self.content_of(request, &file);
        }
        for (suffix, algorithm) in [(".sha256", Algorithm::Sha256), (".sha512", Algorithm::Sha512)] {
            if let Some(path) = path.strip_suffix(suffix)
                && let Some(file) = self.find(path)?
            {
                let sum = self.sum(&file, algorithm)?;
                return Ok(text(&request.method, "text/plain; charset=utf-8", sum.hex()));
            }
        }
        Err(ApiError::unknown(
            Code::BlobUnknown,
            if path.is_empty() {
                format!("a file has a name: {PREFIX}HOST/PATH, as in its address upstream")
            } else {
                format!("there is no file {path} here")
            },
        ))
    }

    /// The file that a decoded path means.
    fn find(&self, path: &str) -> Result<Option<HostedFile>, ApiError> {
        if let Some((host, rest)) = path.split_once('/') {
            let here = self.at(rest)?.into_iter().find(|file| file.host.eq_ignore_ascii_case(host));
            if here.is_some() {
                return Ok(here);
            }
        }
        let mut found = self.at(path)?;
        if found.iter().any(|file| file.digest != found[0].digest) {
            let candidates: Vec<String> =
                found.iter().map(|file| format!("{PREFIX}{}/{path}", file.host)).collect();
            let message =
                format!("several hosts have a file {path}; ask for one of {}", candidates.join(", "));
            let error = ApiError::unknown(Code::BlobUnknown, message);
            return Err(error.with_detail(json!({ "candidates": candidates })));
        }
        found.truncate(1);
        Ok(found.pop())
    }

    /// The files with this path, one for each host that has it.
    fn at(&self, path: &str) -> Result<Vec<HostedFile>, ApiError> {
        let mut found = self.content.files(path)?;
        if let Some(twin) = twin(path)
            && !found.iter().any(|file| file.host == KUBERNETES)
        {
            found.extend(self.content.files(&twin)?.into_iter().filter(|file| file.host == KUBERNETES));
        }
        Ok(found)
    }

    fn content_of(&self, request: &Request, file: &HostedFile) -> Result<Response<Body>, ApiError> {
        // The next import may bring another file of this name.
        let mut response = describe(&file.digest, ASK_AGAIN);
        let headers = response.headers_mut();
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if request.method == Method::HEAD {
            headers.insert(header::CONTENT_TYPE, BINARY);
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(file.size));
            return Ok(response);
        }
        send(request, &file.digest, response, self.blob_of(file)?)
    }

    fn blob_of(&self, file: &HostedFile) -> Result<Blob, ApiError> {
        let blob = self.content.blob(&file.repository, &file.digest)?;
        blob.ok_or_else(|| {
            ApiError::unknown(Code::BlobUnknown, "the content of the file is not here any more")
        })
    }

    /// The digest of a file by `algorithm`: the stated one, or computed once.
    fn sum(&self, file: &HostedFile, algorithm: Algorithm) -> Result<Digest, ApiError> {
        if file.digest.algorithm() == algorithm {
            return Ok(file.digest.clone());
        }
        self.sums.get_or_compute(&file.digest, || {
            self.blob_of(file)?.digest(algorithm).map_err(ApiError::internal)
        })
    }
}

/// The other path that a Kubernetes release has.
fn twin(path: &str) -> Option<String> {
    let is_version = |text: &str| {
        text.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    match path.strip_prefix("release/") {
        Some(rest) => is_version(rest).then(|| rest.to_owned()),
        None => is_version(path).then(|| format!("release/{path}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_releases_have_two_paths() {
        for (path, expected) in [
            ("v1.36.3/bin/x", Some("release/v1.36.3/bin/x")),
            ("release/v1.36.3/bin/x", Some("v1.36.3/bin/x")),
            ("release/stable.txt", None),
            ("version/x", None),
            ("k0s", None),
        ] {
            assert_eq!(twin(path).as_deref(), expected, "{path}");
        }
    }
}
