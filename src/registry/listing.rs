//! Lists: repositories, tags, referrers; each in pages with a `Link` to the next.

use http::{HeaderValue, Response, header};
use serde::Serialize;

use crate::oci::{Descriptor, Digest, MAX_MANIFEST_BYTES, RepositoryName, Tag, media_type};

use super::answer::whole;
use super::body::Body;
use super::error::{ApiError, Code, header_value};
use super::lookup::Lookup;
use super::request::Request;

/// The longest page, also for clients that ask for no page or for a longer one.
const MAX_PAGE: usize = 10_000;
/// How large a page of referrers grows; clients read it like a manifest.
const MAX_REFERRERS_BYTES: usize = MAX_MANIFEST_BYTES - 64 * 1024;

/// `GET /v2/_catalog`.
pub(super) fn catalog(request: &Request, lookup: &Lookup<'_>) -> Result<Response<Body>, ApiError> {
    #[derive(Serialize)]
    struct Page {
        repositories: Vec<RepositoryName>,
    }
    let limit = limit(request)?;
    let mut repositories = lookup.content.repositories(request.query.last.as_deref(), limit + 1)?;
    let next = cut(&mut repositories, limit).map(ToString::to_string);
    let link = next.filter(|_| limit > 0).map(|last| next_page(request, limit, &last)).transpose()?;
    json(request, "application/json", &Page { repositories }, link)
}

/// `GET /v2/<name>/tags/list`.
pub(super) fn tags(request: &Request, lookup: &Lookup<'_>) -> Result<Response<Body>, ApiError> {
    #[derive(Serialize)]
    struct Page {
        name: RepositoryName,
        tags: Vec<Tag>,
    }
    let limit = limit(request)?;
    let found =
        lookup.repository(|name| lookup.content.tags(name, request.query.last.as_deref(), limit + 1))?;
    let found =
        found.ok_or_else(|| ApiError::unknown(Code::NameUnknown, "there is no such repository here"))?;
    let mut page = Page { name: found.name, tags: found.value };
    let next = cut(&mut page.tags, limit).map(ToString::to_string);
    let link = next.filter(|_| limit > 0).map(|last| next_page(request, limit, &last)).transpose()?;
    json(request, "application/json", &page, link)
}

/// `GET /v2/<name>/referrers/<digest>`.
pub(super) fn referrers(
    request: &Request,
    lookup: &Lookup<'_>,
    subject: &Digest,
) -> Result<Response<Body>, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        schema_version: u32,
        media_type: &'static str,
        manifests: Vec<Descriptor>,
    }
    let found = lookup.content(|name| {
        let referrers = lookup.content.referrers(name, subject)?;
        Ok((!referrers.is_empty()).then_some(referrers))
    })?;
    let mut manifests = found.map(|found| found.value).unwrap_or_default();
    let filter = request.query.artifact_type.as_deref().filter(|filter| !filter.is_empty());
    if let Some(filter) = filter {
        manifests.retain(|manifest| manifest.artifact_type.as_deref() == Some(filter));
    }
    if let Some(last) = &request.query.last {
        manifests.retain(|manifest| manifest.digest.to_string() > *last);
    }
    let fitting = fitting(&manifests);
    let next = cut(&mut manifests, fitting).map(|last| last.digest.to_string());
    let link = next.map(|last| next_page(request, 0, &last)).transpose()?;
    let page = Page { schema_version: 2, media_type: media_type::OCI_INDEX, manifests };
    let mut response = json(request, media_type::OCI_INDEX, &page, link)?;
    if filter.is_some() {
        response.headers_mut().insert("oci-filters-applied", HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}

/// How many of the referrers fit on a page; at least one, because an empty page would never end.
fn fitting(manifests: &[Descriptor]) -> usize {
    let mut bytes = 0;
    let fitting = manifests.iter().take_while(|manifest| {
        bytes += serde_json::to_vec(manifest).map_or(0, |json| json.len()) + 1;
        bytes <= MAX_REFERRERS_BYTES
    });
    fitting.count().max(1)
}

/// Shortens a page that has one more result than it should, and returns its new last one if it had.
fn cut<T>(page: &mut Vec<T>, limit: usize) -> Option<&T> {
    if page.len() <= limit {
        return None;
    }
    page.truncate(limit);
    page.last()
}

/// How many results the client wants.
fn limit(request: &Request) -> Result<usize, ApiError> {
    let Some(n) = &request.query.n else { return Ok(MAX_PAGE) };
    let n: u64 = n.parse().map_err(|_| {
        ApiError::bad_request(
            Code::Unsupported,
            "the parameter n is how many results to list, a whole number",
        )
    })?;
    Ok(usize::try_from(n).map_or(MAX_PAGE, |n| n.min(MAX_PAGE)))
}

/// The `Link` header that leads to the page after `last`.
fn next_page(request: &Request, limit: usize, last: &str) -> Result<HeaderValue, ApiError> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let n = limit.to_string();
    let parameters = [
        ("n", (limit > 0).then_some(n.as_str())),
        ("last", Some(last)),
        ("artifactType", request.query.artifact_type.as_deref()),
        ("ns", request.query.ns.as_deref()),
    ];
    for (key, value) in parameters {
        if let Some(value) = value {
            query.append_pair(key, value);
        }
    }
    header_value(&format!("<{}?{}>; rel=\"next\"", request.path, query.finish()))
}

fn json<T: Serialize>(
    request: &Request,
    content_type: &'static str,
    value: &T,
    link: Option<HeaderValue>,
) -> Result<Response<Body>, ApiError> {
    let bytes = serde_json::to_vec(value).map_err(ApiError::internal)?;
    let mut response = whole(&request.method, HeaderValue::from_static(content_type), bytes.into());
    response.headers_mut().extend(link.map(|link| (header::LINK, link)));
    Ok(response)
}
