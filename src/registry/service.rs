//! What every request is answered from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::oci::Digest;
use crate::store::{Content, Store};

use super::access::AccessLog;
use super::error::ApiError;
use super::extras::Extras;
use super::left_out::Indexes;
use super::metrics::{Held, Metrics};
use super::naming::Naming;
use super::readers::Readers;
use super::sessions::Sessions;
use super::tls::Tls;
use super::users::Users;
use super::wants::Wants;

/// What every request is answered from. Clones share it.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) content: Arc<dyn Content>,
    pub(super) naming: Arc<Naming>,
    /// Where pushes go; none on a registry that is read-only.
    pub(super) push: Option<Store>,
    pub(super) uploads: Option<Arc<Sessions>>,
    pub(super) wants: Option<Arc<Wants>>,
    pub(super) indexes: Arc<Indexes>,
    pub(super) readers: Arc<Readers>,
    pub(super) users: Option<Arc<Users>>,
    /// Whether users must say who they are to pull as well.
    pub(super) private: bool,
    pub(super) metrics: Arc<Metrics>,
    pub(super) held: Arc<Held>,
    pub(super) log: Option<AccessLog>,
    pub(super) sums: Arc<Sums>,
    /// What is answered beside images and files.
    pub(super) extras: Option<Arc<dyn Extras>>,
    /// The certificate; `None` if clients come without TLS.
    pub(super) tls: Option<Arc<Tls>>,
}

/// The checksums of files that were computed because nobody stated them: by the digest that was stated.
#[derive(Debug, Default)]
pub(super) struct Sums(Mutex<HashMap<Digest, Digest>>);

impl Sums {
    /// The checksum of the content `stated`, which is computed once.
    pub(super) fn get_or_compute(
        &self,
        stated: &Digest,
        compute: impl FnOnce() -> Result<Digest, ApiError>,
    ) -> Result<Digest, ApiError> {
        let sums = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sums().get(stated).cloned();
        if let Some(sum) = known {
            return Ok(sum);
        }
        let sum = compute()?;
        sums().insert(stated.clone(), sum.clone());
        Ok(sum)
    }
}
