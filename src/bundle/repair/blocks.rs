//! Which blocks are lost, by their digests.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{CHUNK, Progress};
use crate::bundle::volume::{Blocks, Slice, hash};
use crate::file::Span;
use crate::oci::Digest;

/// Which blocks have their digests.
pub(super) fn check_blocks(
    bytes: &Span,
    blocks: Blocks,
    digests: &[Digest],
    threads: usize,
    progress: &(dyn Fn(Progress) + Sync),
) -> Vec<bool> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = vec![0; CHUNK];
        let mut good = Vec::new();
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            let Some(digest) = digests.get(nth) else { return good };
            let (offset, len) = blocks.place(nth as u64);
            if hash(bytes, Slice { offset, len }, digest, &mut buffer).is_ok_and(|found| found == *digest) {
                good.push(nth);
            }
            progress(Progress::Read(len));
        }
    };
    let mut all = vec![false; digests.len()];
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().expect("hashing does not panic").into_iter().for_each(|nth| all[nth] = true);
        }
    });
    all
}
