//! Listing the tags of a repository.

use serde::Deserialize;

use super::Upstream;
use super::body::words;
use super::error::{Missing, Problem, UpstreamError};
use super::request::Ask;
use crate::oci::{RepositoryName, Tag};

/// The longest page of tags, in bytes; some registries send them all in one.
const MAX_PAGE: usize = 16 * 1024 * 1024;
/// Tags per page that are asked for.
const PER_PAGE: usize = 1000;

#[derive(Deserialize)]
struct TagList {
    #[serde(default)]
    tags: Option<Vec<Tag>>,
}

impl Upstream {
    /// The tags of the repository `name`, in the registry's order.
    pub async fn tags(&self, name: &RepositoryName) -> Result<Vec<Tag>, UpstreamError> {
        let subject = self.subject(name, format!("the tags of {name}"), Missing::Repository)?;
        let mut url = subject.endpoint.url("tags/list");
        url.query_pairs_mut().append_pair("n", &PER_PAGE.to_string());
        let mut tags = Vec::new();
        self.pages(&subject, Ask::new(url, "application/json"), MAX_PAGE, |page| {
            let list: TagList = serde_json::from_slice(&page.body).map_err(|error| {
                Problem::Answer(format!("no list of tags: {}", words(&error.to_string())))
            })?;
            tags.extend(list.tags.unwrap_or_default());
            Ok(tags.len())
        })
        .await?;
        Ok(tags)
    }
}
