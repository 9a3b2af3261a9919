//! Lists that come in pages (distribution specification, "Listing Tags").

use http::HeaderMap;
use http::header::LINK;

use super::Upstream;
use super::error::{Problem, UpstreamError};
use super::request::{Ask, Page, Subject};

/// The most pages that one list is read from.
const MAX_PAGES: usize = 1000;
/// The most entries of one list.
const MAX_ENTRIES: usize = 500_000;

impl Upstream {
    /// Reads page after page; `take` keeps what is in one and says how many entries there are by now.
    pub(super) async fn pages(
        &self,
        subject: &Subject,
        mut ask: Ask,
        limit: usize,
        mut take: impl FnMut(Page) -> Result<usize, Problem>,
    ) -> Result<(), UpstreamError> {
        for _ in 0..MAX_PAGES {
            let page = self.page(subject, &ask, limit).await?;
            let next = next_query(&page.headers);
            let entries = take(page).map_err(|problem| subject.error(problem))?;
            if entries > MAX_ENTRIES {
                return Err(subject.error(Problem::Answer(format!("more than {MAX_ENTRIES} entries"))));
            }
            match next {
                // Only the query is taken over: the next request carries credentials and stays where the first went.
                Some(query) if ask.url.query() != Some(&query) => ask.url.set_query(Some(&query)),
                Some(_) => return Err(subject.error(Problem::Answer("a page is its own next page".into()))),
                None => return Ok(()),
            }
        }
        Err(subject.error(Problem::Answer(format!("more than {MAX_PAGES} pages"))))
    }
}

/// The query of the next page's address in the `Link` header (RFC 8288).
fn next_query(headers: &HeaderMap) -> Option<String> {
    headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).find_map(next_in)
}

fn next_in(value: &str) -> Option<String> {
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('<') {
        let (address, after) = after.split_once('>')?;
        let end = after.find('<').unwrap_or(after.len());
        let is_next =
            after[..end].split([';', ',']).filter_map(|part| part.split_once('=')).any(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "next"
            });
        if is_next {
            return address.split_once('?').map(|(_, query)| query.to_owned());
        }
        rest = &after[end..];
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_the_next_page() {
        for (value, expected) in [
            (r#"</v2/a/tags/list?n=2&last=b>; rel="next""#, Some("n=2&last=b")),
            (r"<https://other.example/v2/a/tags/list?last=b>;rel=next", Some("last=b")),
            (r#"</first?x>; rel="prev", </v2/a/tags/list?last=c>; title="a"; rel="next""#, Some("last=c")),
            (r#"</v2/a/tags/list?last=b>; rel="prev""#, None),
            (r#"</v2/a/tags/list>; rel="next""#, None),
            ("</v2/a", None),
            ("", None),
        ] {
            assert_eq!(next_in(value).as_deref(), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(value in ".{0,200}") {
            let _ = next_in(&value);
        }
    }
}
