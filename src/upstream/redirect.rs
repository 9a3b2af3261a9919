//! Redirects: registries keep their blobs on other servers and send clients there.
//!
//! They are followed here and not by the HTTP client, so that an error names the server that failed, and so that what
//! goes along is decided in one place.

use http::StatusCode;
use http::header::LOCATION;
use reqwest::Response;
use url::Url;

use super::endpoint::authority;
use super::error::Problem;

/// The most redirects from one request.
pub(super) const MAX_REDIRECTS: usize = 5;

/// Where an answer to a request for `url` sends the client; nothing if it is no redirect.
///
/// What a refused address holds beside its server is not shown, because it may be a signature.
pub(super) fn target(url: &Url, response: &Response) -> Result<Option<Url>, Problem> {
    let is_redirect = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    match response.headers().get(LOCATION) {
        Some(location) if is_redirect => {
            let location = location.to_str().map_err(|_| Problem::Redirect("to no address".into()))?;
            follow(url, location).map(Some)
        }
        _ => Ok(None),
    }
}

/// The address that `location` means, seen from `url`.
fn follow(url: &Url, location: &str) -> Result<Url, Problem> {
    let next = url.join(location).map_err(|_| Problem::Redirect("to no address".into()))?;
    let (from, to) = (url.scheme(), next.scheme());
    let allowed = to == "https" || (to == "http" && from == "http");
    if allowed && next.host().is_some() {
        Ok(next)
    } else {
        Err(Problem::Redirect(format!("from {from} to {to} at {}, which is not safe", authority(&next))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from(url: &str, location: &str) -> Option<String> {
        follow(&url.parse().unwrap(), location).ok().map(String::from)
    }

    #[test]
    fn never_gives_up_tls() {
        for (url, location, expected) in [
            ("https://a.io/v2/x", "https://b.io/y?z", Some("https://b.io/y?z")),
            ("https://a.io/v2/x", "/y", Some("https://a.io/y")),
            ("https://a.io/v2/x", "y", Some("https://a.io/v2/y")),
            ("https://a.io/v2/x", "//b.io/y", Some("https://b.io/y")),
            ("http://a.io/x", "https://b.io/", Some("https://b.io/")),
            ("http://a.io/x", "http://b.io/", Some("http://b.io/")),
            ("https://a.io/x", "http://a.io/", None),
            ("http://a.io/x", "file:///etc/passwd", None),
            ("https://a.io/x", "data:text/plain,x", None),
            ("https://a.io/x", "https://[", None),
        ] {
            assert_eq!(from(url, location).as_deref(), expected, "{location}");
        }
    }

    proptest! {
        #[test]
        fn stays_encrypted(location in ".{0,80}") {
            if let Some(next) = from("https://a.io/v2/x", &location) {
                prop_assert!(next.starts_with("https://"));
            }
        }
    }
}
