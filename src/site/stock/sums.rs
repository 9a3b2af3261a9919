//! Checksums of archives and files, each computed once while the program runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use super::{Stock, StockError};
use crate::oci::{Algorithm, Digest};
use crate::site::export::Archive;
use crate::store::{ContentError, HostedFile};

/// How many checksums are remembered; when there are more, they are computed again.
const MAX: usize = 1024;

type Cell = Arc<Mutex<Option<Digest>>>;

/// The checksums so far, by what they are of.
#[derive(Debug, Default)]
pub(super) struct Sums(Mutex<HashMap<(Digest, Algorithm), Cell>>);

impl Sums {
    fn cell(&self, of: &Digest, algorithm: Algorithm) -> Cell {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sums.len() >= MAX {
            sums.clear();
        }
        Arc::clone(sums.entry((of.clone(), algorithm)).or_default())
    }

    /// The checksum, or none while another thread computes it.
    fn get(
        &self,
        of: &Digest,
        algorithm: Algorithm,
        compute: impl FnOnce() -> Result<Digest, StockError>,
    ) -> Result<Option<Digest>, StockError> {
        let cell = self.cell(of, algorithm);
        let mut sum = match cell.try_lock() {
            Ok(sum) => sum,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            // Whoever waits here occupies a thread that others need to read with.
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        if sum.is_none() {
            *sum = Some(compute()?);
        }
        Ok(sum.clone())
    }
}

impl Stock {
    /// The digest of an archive by `algorithm`; none while it is being computed for somebody else.
    pub fn archive_sum(&self, archive: &Archive, algorithm: Algorithm) -> Result<Option<Digest>, StockError> {
        self.sums.get(&archive.composition().identity, algorithm, || {
            Ok(archive.digest(self.content(), algorithm, &mut |_| ())?)
        })
    }

    /// The digest of a file by `algorithm`, of which all is there and good; none while it is being computed for somebody
    /// else.
    pub fn file_sum(&self, file: &HostedFile, algorithm: Algorithm) -> Result<Option<Digest>, StockError> {
        let damaged = || ContentError::Damaged(file.digest.clone());
        let blob = self.content.blob(&file.repository, &file.digest)?.ok_or_else(damaged)?;
        if file.digest.algorithm() == algorithm {
            return Ok(Some(file.digest.clone()));
        }
        self.sums.get(&file.digest, algorithm, || Ok(blob.digest(algorithm).map_err(ContentError::from)?))
    }
}
