//! Reading answers within bounds, and what registries say about errors.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use reqwest::Response;
use serde::Deserialize;

use super::error::Problem;
use super::retry::{Again, Failure, classify, is_passing, retry_after};

/// How much of an error's body is read, in bytes.
const MAX_ERROR: usize = 8 * 1024;
/// How long to wait for an error's body; the status has said the main thing.
const ERROR_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a registry's words an error message repeats, in characters.
const MAX_WORDS: usize = 200;

/// Reads a body of at most `limit` bytes.
pub(super) async fn bounded(mut response: Response, limit: usize) -> Result<Bytes, Failure> {
    let too_large = || Failure::final_(Problem::TooLarge { limit: limit as u64 });
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let (mut body, url) = (BytesMut::new(), response.url().clone());
    while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error, &url))? {
        if body.len() + chunk.len() > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// What a registry says about an error.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Detail {
    /// The code of the distribution specification, for instance `MANIFEST_UNKNOWN`; empty if there is none.
    pub(super) code: String,
    /// Code and message for people; empty if there is nothing to repeat.
    pub(super) text: String,
}

/// Reads what an error answer says; anything that cannot be read says nothing.
pub(super) async fn detail(mut response: Response) -> Detail {
    let is_text = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("text/plain"));
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk[..chunk.len().min(MAX_ERROR - body.len())]);
            if body.len() == MAX_ERROR {
                break;
            }
        }
    };
    // What has arrived by then is shown.
    let _ = tokio::time::timeout(ERROR_TIMEOUT, read).await;
    interpret(&body, is_text)
}

#[derive(Deserialize)]
struct ErrorDocument {
    #[serde(default)]
    errors: Vec<ErrorFields>,
    #[serde(default)]
    details: Option<String>,
}

#[derive(Deserialize)]
struct ErrorFields {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

fn interpret(body: &[u8], is_text: bool) -> Detail {
    let document: Option<ErrorDocument> = serde_json::from_slice(body).ok();
    match document {
        Some(document) => match document.errors.into_iter().next() {
            Some(ErrorFields { code, message }) => {
                let text = [code.as_str(), message.as_str()].into_iter().filter(|part| !part.is_empty());
                Detail { text: words(&text.collect::<Vec<_>>().join(": ")), code: words(&code) }
            }
            // The form of Docker Hub's token server.
            None => Detail { text: words(&document.details.unwrap_or_default()), code: String::new() },
        },
        None if is_text => Detail { text: words(&String::from_utf8_lossy(body)), code: String::new() },
        None => Detail::default(),
    }
}

/// The first words of a foreign text, without what could play tricks on a terminal.
pub(super) fn words(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The failure that an answer with an unexpected status means.
pub(super) async fn failure(response: Response) -> Failure {
    let status = response.status();
    let wait = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
    let detail = detail(response).await;
    let limited = status == StatusCode::TOO_MANY_REQUESTS || detail.code == "TOOMANYREQUESTS";
    let again = match wait {
        _ if !limited && !is_passing(status) => Again::Never,
        Some(wait) if limited || status == StatusCode::SERVICE_UNAVAILABLE => Again::After(wait),
        _ => Again::Later,
    };
    let problem = if limited {
        Problem::RateLimited { wait }
    } else {
        Problem::Status { status: status.as_u16(), detail: detail.text }
    };
    Failure { problem, again }
}

/// The length of the body as the registry states it.
pub(super) fn stated_length(response: &Response) -> Option<u64> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Returns the coding that the body is in, or `None` if it is the content itself.
pub(super) fn coding(headers: &HeaderMap) -> Option<String> {
    let value = words(&String::from_utf8_lossy(headers.get(CONTENT_ENCODING)?.as_bytes()));
    (!value.is_empty() && !value.eq_ignore_ascii_case("identity")).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_registries_say() {
        let detail = |body: &str| interpret(body.as_bytes(), false);
        let unknown =
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"1"}}]}"#;
        assert_eq!(
            detail(unknown),
            Detail { code: "MANIFEST_UNKNOWN".into(), text: "MANIFEST_UNKNOWN: manifest unknown".into() }
        );
        assert_eq!(
            detail(r#"{"details":"incorrect username or password"}"#).text,
            "incorrect username or password"
        );
        assert_eq!(detail("<html>gateway</html>"), Detail::default());
        assert_eq!(interpret(b"no such\n\x1b[31mthing", true).text, "no such [31mthing");
        assert_eq!(interpret("x".repeat(5000).as_bytes(), true).text.len(), MAX_WORDS);
    }

    proptest! {
        #[test]
        fn never_panics_and_never_prints_control_characters(body in ".{0,300}", is_text: bool) {
            let detail = interpret(body.as_bytes(), is_text);
            prop_assert!(!detail.text.chars().any(char::is_control));
        }
    }
}
