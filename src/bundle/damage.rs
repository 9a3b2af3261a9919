//! Which blobs of a bundle are damaged, where, and whom that hits.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::media::{Absent, Why};
use super::plan::Entry;
use super::read::{Bundle, BundleError};
use super::tar;
use super::volume::Slice;
use crate::oci::{Digest, Hasher, Reference};
use crate::resolve::{LockedBlob, LockedImage};
use crate::text;

/// How much is read and hashed at a time.
const CHUNK: usize = 1024 * 1024;
/// How much of the damage is named in a message.
const NAMED: usize = 20;

/// A blob whose bytes are not what its digest stands for, or whose header is not what the lock makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The blob.
    pub digest: Digest,
    /// The file that the damage is in.
    pub path: PathBuf,
    /// Where in that file the damaged part begins: the header, the blob, or the first block of it that a volume knows to be
    /// damaged. None when the file is missing.
    pub offset: Option<u64>,
    /// The images that need it.
    pub images: Vec<Reference>,
}

/// Names damage to the bundle at `path`.
pub(super) fn describe(path: &Path, damage: &[Damage]) -> String {
    let one = |damage: &Damage| {
        let images: Vec<String> = damage.images.iter().map(ToString::to_string).collect();
        let images = if images.is_empty() { "plain files".to_owned() } else { images.join(", ") };
        let file = if damage.path == path { String::new() } else { format!(" of {}", damage.path.display()) };
        match damage.offset {
            Some(offset) => format!("{} at byte {offset}{file} is damaged and hits {images}", damage.digest),
            None => {
                format!(
                    "{} lies in {}, which is missing, and hits {images}",
                    damage.digest,
                    damage.path.display()
                )
            }
        }
    };
    text::clauses(damage.iter().map(one), NAMED)
}

/// Names parts of a file.
pub(super) fn describe_ranges(ranges: &[(u64, u64)]) -> String {
    let one = |(start, end): &(u64, u64)| format!("bytes {start} to {} are damaged", end - 1);
    text::clauses(ranges.iter().map(one), NAMED)
}

/// Names the volumes of the bundle `name` that cannot be had.
pub(super) fn describe_absent(name: &str, of: u32, absent: &[Absent]) -> String {
    let one = |absent: &Absent| {
        let (number, path) = (absent.number, absent.path.display());
        match &absent.why {
            Why::Missing => format!("volume {number} of {of} of {name} is missing: {path} is not there"),
            Why::Foreign(what) => {
                format!("volume {number} of {of} of {name} is missing: {path} is another bundle's, {what}")
            }
            Why::Damaged(what) => {
                format!("volume {number} of {of} of {name}: {path} is damaged: {what}, at byte 0")
            }
        }
    };
    text::clauses(absent.iter().map(one), NAMED)
}

impl Bundle {
    /// Hashes every blob on `threads` threads and names all that are damaged. `progress` is told of bytes as they are
    /// read.
    pub fn verify_blobs(&self, threads: usize, progress: &(dyn Fn(u64) + Sync)) -> Result<(), BundleError> {
        let next = AtomicUsize::new(0);
        let check_next = || {
            let mut damaged = Vec::new();
            let mut buffer = vec![0; CHUNK];
            loop {
                let Some((blob, entry)) = self.blob(next.fetch_add(1, Ordering::Relaxed)) else {
                    return damaged;
                };
                if !self.header_is_good(entry) {
                    damaged.push((entry.header, self.damage_in(blob, header_of(entry))));
                } else if !self.blob_is_good(blob, entry, &mut buffer, progress) {
                    damaged.push((entry.header, self.damage(blob, entry)));
                }
            }
        };
        let mut damage: Vec<(u64, Damage)> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(check_next)).collect();
            workers.into_iter().flat_map(|worker| worker.join().expect("hashing does not panic")).collect()
        });
        damage.sort_by_key(|(header, _)| *header);
        self.refuse_damaged(damage.into_iter().map(|(_, damage)| damage).collect())
    }

    /// Compares the headers of all blobs with what the lock makes them.
    pub(super) fn check_headers(&self) -> Result<(), BundleError> {
        let blobs = (0..).map_while(|nth| self.blob(nth));
        let bad = blobs.filter(|(_, entry)| !self.header_is_good(entry));
        self.refuse_damaged(bad.map(|(blob, entry)| self.damage_in(blob, header_of(entry))).collect())
    }

    fn refuse_damaged(&self, damage: Vec<Damage>) -> Result<(), BundleError> {
        if damage.is_empty() {
            return self.media().check_whole();
        }
        Err(BundleError::Damaged { path: self.path().to_owned(), damage })
    }

    /// Names the content of `blob`, and the images that it belongs to.
    pub(super) fn damage(&self, blob: &LockedBlob, entry: &Entry) -> Damage {
        self.damage_in(blob, Slice { offset: entry.offset, len: entry.size })
    }

    fn damage_in(&self, blob: &LockedBlob, range: Slice) -> Damage {
        let media = self.media();
        let known = media.first_damage(range);
        let (path, offset) = known.unwrap_or_else(|| {
            let (path, offset) = media.locate(range.offset);
            (path, Some(offset))
        });
        let images = self.images_with(&blob.digest);
        Damage { digest: blob.digest.clone(), path: path.to_owned(), offset, images }
    }

    /// The images that need the blob `digest`.
    fn images_with(&self, digest: &Digest) -> Vec<Reference> {
        let needs =
            |image: &&LockedImage| image.manifests().chain(image.contents()).any(|found| found == digest);
        self.lock().images.iter().filter(needs).map(|image| image.reference.clone()).collect()
    }

    /// The images of which something lies in volumes that are absent.
    pub fn images_in_absent(&self) -> Vec<Reference> {
        let blobs = (0..).map_while(|nth| self.blob(nth));
        let lost = blobs.filter(|(_, entry)| {
            let range = Slice { offset: entry.offset, len: entry.size };
            self.media().is_absent(range)
        });
        let lost: HashSet<&Digest> = lost.map(|(blob, _)| &blob.digest).collect();
        let hit = |image: &&LockedImage| image.essentials().any(|digest| lost.contains(digest));
        self.lock().images.iter().filter(hit).map(|image| image.reference.clone()).collect()
    }

    fn header_is_good(&self, entry: &Entry) -> bool {
        let expected = tar::header(&entry.path, entry.size, self.mtime());
        let mut found = vec![0; expected.len()];
        // A part of a medium that cannot be read is as good as damaged.
        self.media().bytes().read_exact_at(&mut found, entry.header).is_ok() && found == expected
    }

    fn blob_is_good(
        &self,
        blob: &LockedBlob,
        entry: &Entry,
        buffer: &mut [u8],
        progress: &(dyn Fn(u64) + Sync),
    ) -> bool {
        let media = self.media().bytes();
        let mut hasher = Hasher::new(blob.digest.algorithm());
        let mut done = 0;
        while done < entry.size {
            let wanted =
                usize::try_from(entry.size - done).map_or(buffer.len(), |left| left.min(buffer.len()));
            if let Err(error) = media.read_exact_at(&mut buffer[..wanted], entry.offset + done) {
                tracing::warn!("cannot read {}: {error}", blob.digest);
                progress(entry.size - done);
                return false;
            }
            hasher.update(&buffer[..wanted]);
            done += wanted as u64;
            progress(wanted as u64);
        }
        let padding =
            usize::try_from(entry.size.next_multiple_of(tar::BLOCK) - entry.size).expect("less than a block");
        let padding = &mut buffer[..padding];
        let padded = media.read_exact_at(padding, entry.offset + entry.size).is_ok();
        padded && hasher.finish() == blob.digest && padding.iter().all(|b| *b == 0)
    }
}

fn header_of(entry: &Entry) -> Slice {
    Slice { offset: entry.header, len: entry.offset - entry.header }
}
