//! What happens when something is not here: the client is told what it belongs to, and what a node misses is remembered.

use std::sync::atomic::Ordering;

use http::{Method, Response, StatusCode};
use serde_json::json;

use crate::oci::{Digest, Reference, RepositoryName};
use crate::resolve::BUNDLE_HOST;
use crate::upstream::is_own_agent;

use super::body::Body;
use super::error::{ApiError, blocking};
use super::left_out::{LeftOut, Owner};
use super::lookup::Lookup;
use super::path::{Endpoint, ManifestReference, PathError};
use super::request::Request;
use super::service::Service;
use super::wants::{Miss, Wants};

impl Service {
    /// Remembers who reads a manifest.
    pub(super) fn note_read(&self, request: &Request, response: &Response<Body>) {
        if let Some(digest) = response.headers().get("docker-content-digest") {
            self.readers.note(request.peer, request.user_agent(), digest.as_bytes());
        }
    }

    /// Takes note that a manifest was asked for in vain, and says in the error what it belongs to. Blocks on the disk.
    pub(super) fn manifest_missed(
        &self,
        request: &Request,
        lookup: &Lookup<'_>,
        name: &RepositoryName,
        reference: &ManifestReference,
        error: ApiError,
    ) -> ApiError {
        if error.status() != StatusCode::NOT_FOUND {
            return error;
        }
        self.metrics.misses.fetch_add(1, Ordering::Relaxed);
        let owner = match reference {
            ManifestReference::Tag(_) => None,
            ManifestReference::Digest(digest) => {
                self.readers.note(request.peer, request.user_agent(), digest.to_string().as_bytes());
                self.owner(lookup, digest)
            }
        };
        if let Some(owner) = owner {
            self.note_left_out(request, &owner);
            return told(error, &owner);
        }
        if let Some(reference) = self.wanted(request, name, reference) {
            self.note(request, reference, None);
        }
        error
    }

    /// Says in the error what a blob belongs to that was asked for in vain, and takes note when it is a part of an image that
    /// was left out. Blocks on the disk.
    pub(super) fn blob_missed(
        &self,
        request: &Request,
        lookup: &Lookup<'_>,
        digest: &Digest,
        error: ApiError,
    ) -> ApiError {
        // `HEAD` is how clients that push ask what they need not send; nodes get their layers by `GET`.
        if error.status() != StatusCode::NOT_FOUND || request.method == Method::HEAD {
            return error;
        }
        let Some(owner) = self.owner(lookup, digest) else { return error };
        self.note_left_out(request, &owner);
        told(error, &owner)
    }

    /// Forgets what a client checked for before it began to push. Whether the push is let in does not matter: it was not a
    /// node that asked.
    pub(super) async fn forget_checks(&self, request: &Request, endpoint: &Result<Endpoint, PathError>) {
        let Some(wants) = self.wants.clone() else { return };
        let Ok(Endpoint::Uploads(name) | Endpoint::Upload(name, _) | Endpoint::Manifest(name, _)) = endpoint
        else {
            return;
        };
        let Some(name) = self.naming.probable(request.asked(name)) else { return };
        if wants.forget_checks(&name, request.peer, request.user_agent()) {
            // Boxed, because it hardly ever happens.
            let saved = blocking(move || {
                save(&wants);
                Ok(())
            });
            let _ = Box::pin(saved).await;
        }
    }

    /// Forgets that an image was missing that was just pushed.
    pub(super) fn forget_image(
        &self,
        request: &Request,
        name: &RepositoryName,
        reference: &ManifestReference,
    ) {
        if let Some(wants) = &self.wants
            && let Some(reference) = self.wanted(request, name, reference)
            && wants.forget_image(&reference)
        {
            save(wants);
        }
    }

    /// The image that a request most probably means; `None` if nobody could bring it.
    fn wanted(
        &self,
        request: &Request,
        name: &RepositoryName,
        reference: &ManifestReference,
    ) -> Option<Reference> {
        let name = self.naming.probable(request.asked(name))?;
        // What a bundle says about itself comes with the bundle, and cannot be had anywhere else.
        if name.host() == Some(BUNDLE_HOST) {
            return None;
        }
        Some(match reference {
            ManifestReference::Tag(tag) => Reference::new(name, Some(tag.clone()), None),
            ManifestReference::Digest(digest) => Reference::new(name, None, Some(digest.clone())),
        })
    }

    fn owner(&self, lookup: &Lookup<'_>, missing: &Digest) -> Option<Owner> {
        let found = lookup.content(|name| self.indexes.owner(lookup.content, name, missing));
        // The client gets the error that it would have got without this.
        found
            .inspect_err(|error| tracing::debug!("cannot tell what {missing} belongs to: {error:?}"))
            .ok()?
            .map(|found| found.value)
    }

    fn note_left_out(&self, request: &Request, owner: &Owner) {
        let (client, user_agent) = (request.peer, request.user_agent());
        if owner.image.name().host() == Some(BUNDLE_HOST) {
            return;
        }
        if !self.readers.has_asked(client, user_agent, &owner.others, &owner.indexes) {
            self.note(request, owner.image.clone(), Some(owner.entry.clone()));
        } else if let Some(wants) = &self.wants
            && wants.forget_reading(&owner.image, client, user_agent)
        {
            save(wants);
        }
    }

    fn note(&self, request: &Request, reference: Reference, left_out: Option<LeftOut>) {
        let Some(wants) = &self.wants else { return };
        let user_agent = request.user_agent();
        if is_own_agent(user_agent) {
            return;
        }
        let is_head = request.method == Method::HEAD;
        if wants.note(Miss { reference, left_out, client: request.peer, user_agent, is_head }) {
            save(wants);
        }
    }
}

fn told(error: ApiError, Owner { image, entry, .. }: &Owner) -> ApiError {
    let detail = json!({ "image": image, "leftOut": entry });
    error.and_say(&format!("{entry} was left out of this bundle ({image})")).with_detail(detail)
}

fn save(wants: &Wants) {
    if let Err(error) = wants.save_at_once() {
        tracing::warn!("cannot save what was asked for in vain: {error}");
    }
}
