//! Finding what a request asks for under one of the names that it can mean.

use std::collections::BTreeMap;

use http::StatusCode;

use crate::oci::{Descriptor, Digest, RepositoryName, Tag, TagMeaning};
use crate::store::{Content, ContentError};

use super::error::{ApiError, Code};
use super::naming::Candidates;

/// How many repositories are named to a client that could have meant any of them.
const NAMED: usize = 20;

/// What was found, and the repository that it is in.
pub(super) struct Found<T> {
    pub(super) name: RepositoryName,
    pub(super) value: T,
}

/// Looks for something in the repositories that a request can mean. Blocks on the disk.
pub(super) struct Lookup<'a> {
    pub(super) content: &'a dyn Content,
    pub(super) candidates: &'a Candidates,
}

impl Lookup<'_> {
    /// What the tag points at. Different images of one name under different hosts are an error that names them.
    pub(super) fn tag(&self, tag: &Tag) -> Result<Option<Found<Descriptor>>, ApiError> {
        if let Some(found) = self.named_tag(tag)? {
            return Ok(Some(found));
        }
        let found = self.anywhere(|name| self.content.resolve(name, tag))?;
        let distinct: BTreeMap<&Digest, &RepositoryName> =
            found.iter().map(|found| (&found.value.digest, &found.name)).collect();
        if distinct.len() > 1 {
            return Err(ambiguous(&format!("the tag {tag}"), found.iter().map(|found| &found.name)));
        }
        Ok(found.into_iter().next())
    }

    /// Something that is the same wherever it is found, because it is named by its digest.
    pub(super) fn content<T>(
        &self,
        find: impl Fn(&RepositoryName) -> Result<Option<T>, ContentError>,
    ) -> Result<Option<Found<T>>, ApiError> {
        if let Some(found) = self.named(&find)? {
            return Ok(Some(found));
        }
        Ok(self.anywhere(&find)?.into_iter().next())
    }

    /// Something that belongs to one repository, such as its list of tags.
    pub(super) fn repository<T>(
        &self,
        find: impl Fn(&RepositoryName) -> Result<Option<T>, ContentError>,
    ) -> Result<Option<Found<T>>, ApiError> {
        if let Some(found) = self.named(&find)? {
            return Ok(Some(found));
        }
        let mut found = self.anywhere(&find)?;
        if found.len() > 1 {
            return Err(ambiguous("the repository", found.iter().map(|found| &found.name)));
        }
        Ok(found.pop())
    }

    /// What the tag points at under the likeliest name. A tag that only pinned references have set gives way to the same tag
    /// under another name of the same repository.
    fn named_tag(&self, tag: &Tag) -> Result<Option<Found<Descriptor>>, ContentError> {
        let mut pinned: Option<Found<Descriptor>> = None;
        for name in &self.candidates.names {
            let found = |value| Some(Found { name: name.clone(), value });
            match (self.content.meaning(name, tag)?, &pinned) {
                (Some(TagMeaning::Unpinned(value)), None) => return Ok(found(value)),
                (Some(TagMeaning::Unpinned(value)), Some(pinned)) if pinned.name.is_same_as(name) => {
                    return Ok(found(value));
                }
                (Some(TagMeaning::Pinned(value)), None) => pinned = found(value),
                _ => {}
            }
        }
        Ok(pinned)
    }

    fn named<T>(
        &self,
        find: impl Fn(&RepositoryName) -> Result<Option<T>, ContentError>,
    ) -> Result<Option<Found<T>>, ApiError> {
        for name in &self.candidates.names {
            if let Some(value) = find(name)? {
                return Ok(Some(Found { name: name.clone(), value }));
            }
        }
        Ok(None)
    }

    /// Looks under every host that has one of the paths.
    fn anywhere<T>(
        &self,
        find: impl Fn(&RepositoryName) -> Result<Option<T>, ContentError>,
    ) -> Result<Vec<Found<T>>, ApiError> {
        let mut found = Vec::new();
        if self.candidates.paths.is_empty() {
            return Ok(found);
        }
        for name in self.content.repositories(None, usize::MAX)? {
            let fits = name.host().is_some() && self.candidates.paths.iter().any(|path| path == name.path());
            if fits && let Some(value) = find(&name)? {
                found.push(Found { name, value });
            }
        }
        Ok(found)
    }
}

fn ambiguous<'a>(what: &str, names: impl Iterator<Item = &'a RepositoryName>) -> ApiError {
    let names: Vec<&str> = names.take(NAMED).map(RepositoryName::as_str).collect();
    ApiError::new(
        StatusCode::NOT_FOUND,
        Code::NameUnknown,
        format!("{what} is in several repositories, say which one: put the registry's host into the path or into ?ns="),
    )
    .with_detail(serde_json::json!({ "candidates": names }))
}
