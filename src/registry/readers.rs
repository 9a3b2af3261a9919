//! Telling nodes from tools that read a whole index.
//!
//! A node asks for an index, and then for the entries that it can run. Copy tools, and `ctr` since containerd 2.0, ask for
//! the entries of every platform; what they miss keeps no node from starting.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::oci::Digest;

/// How many requests are remembered. That is what a hundred nodes ask for at once; beyond that a tool counts as a node.
const MAX_RECENT: usize = 1024;
/// How long the reading of an index may take. It is short, because nodes behind one address look like one client.
pub(super) const READING: Duration = Duration::from_mins(1);

/// Who asked for which manifest lately.
#[derive(Debug, Default)]
pub(super) struct Readers {
    recent: Mutex<VecDeque<Read>>,
    hasher: RandomState,
}

/// A request for a manifest, in a form that needs no memory of its own.
#[derive(Clone, Copy, Debug)]
struct Read {
    when: Instant,
    client: u64,
    digest: u64,
}

impl Readers {
    /// Remembers that a client asked for the manifest `digest`, by that or by a tag.
    pub(super) fn note(&self, client: IpAddr, user_agent: &str, digest: &[u8]) {
        let read = Read {
            when: Instant::now(),
            client: self.hasher.hash_one((client, user_agent)),
            digest: self.hasher.hash_one(digest),
        };
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= MAX_RECENT {
            recent.pop_front();
        }
        recent.push_back(read);
    }

    /// Returns whether a client has asked for one of `entries` since it last asked for one of the `indexes` that they are
    /// in.
    pub(super) fn has_asked(
        &self,
        client: IpAddr,
        user_agent: &str,
        entries: &[Digest],
        indexes: &[Digest],
    ) -> bool {
        let hash = |digest: &Digest| self.hasher.hash_one(digest.to_string().as_bytes());
        let client = self.hasher.hash_one((client, user_agent));
        let entries: Vec<u64> = entries.iter().map(hash).collect();
        let indexes: Vec<u64> = indexes.iter().map(hash).collect();
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let reads = recent.iter().rev().take_while(|read| read.when.elapsed() < READING);
        reads
            .filter(|read| read.client == client)
            .take_while(|read| !indexes.contains(&read.digest))
            .any(|read| entries.contains(&read.digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_belong_to_a_client_and_are_bounded() {
        let readers = Readers::default();
        let [one, two] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let digest = |n: usize| Digest::sha256(&n.to_be_bytes());
        let note = |client, agent, n| readers.note(client, agent, digest(n).to_string().as_bytes());
        note(one, "ctr", 0);
        assert!(readers.has_asked(one, "ctr", &[digest(1), digest(0)], &[]));
        assert!(!readers.has_asked(one, "ctr", &[digest(1)], &[]));
        assert!(!readers.has_asked(one, "crane", &[digest(0)], &[]));
        assert!(!readers.has_asked(two, "ctr", &[digest(0)], &[]));
        for n in 1..=MAX_RECENT {
            note(two, "crane", n);
        }
        assert!(!readers.has_asked(one, "ctr", &[digest(0)], &[]), "the oldest is forgotten");
        assert_eq!(readers.recent.lock().unwrap().len(), MAX_RECENT);
    }

    #[test]
    fn a_reading_begins_with_its_index() {
        let readers = Readers::default();
        let client = IpAddr::from([10, 0, 0, 1]);
        let [index, linux] = [b"index".as_slice(), b"linux"].map(Digest::sha256);
        for (asked, is_reading) in [(&linux, true), (&index, false), (&linux, true)] {
            readers.note(client, "", asked.to_string().as_bytes());
            let entries = std::slice::from_ref(&linux);
            assert_eq!(readers.has_asked(client, "", entries, std::slice::from_ref(&index)), is_reading);
        }
    }
}
