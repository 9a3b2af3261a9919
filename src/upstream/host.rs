//! How many requests a server gets at the same time, and when it gets none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The servers that requests were made to.
#[derive(Debug)]
pub(super) struct Hosts {
    per_host: usize,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

impl Hosts {
    /// Allows each server `per_host` requests at the same time, and one at least.
    pub(super) fn new(per_host: usize) -> Self {
        Self { per_host: per_host.max(1), hosts: Mutex::default() }
    }

    pub(super) fn get(&self, origin: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(origin) {
            return Arc::clone(host);
        }
        let host = Arc::new(Host {
            permits: Arc::new(Semaphore::new(self.per_host)),
            quiet_until: Mutex::new(Instant::now()),
            remaining: Mutex::new(None),
        });
        hosts.insert(origin.to_owned(), Arc::clone(&host));
        host
    }
}

/// One server.
#[derive(Debug)]
pub(super) struct Host {
    permits: Arc<Semaphore>,
    quiet_until: Mutex<Instant>,
    remaining: Mutex<Option<u64>>,
}

impl Host {
    /// Waits until the server may get another request, which lasts until the permit is dropped.
    pub(super) async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed, so there always is a permit.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        loop {
            let until = *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
            if until <= Instant::now() {
                return permit;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// Returns how many requests the server still lets through, as far as it has said: 0 after it has refused one,
    /// `None` if it has said nothing.
    pub(super) fn remaining(&self) -> Option<u64> {
        *self.remaining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers how many requests the server still lets through.
    pub(super) fn note_remaining(&self, requests: u64) {
        *self.remaining.lock().unwrap_or_else(PoisonError::into_inner) = Some(requests);
    }

    /// Keeps all requests from the server for `wait`, as it asked for.
    pub(super) fn quiet(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut quiet_until = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        *quiet_until = until.max(*quiet_until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn limits_each_host_on_its_own() {
        let hosts = Hosts::new(2);
        let host = hosts.get("https://a.example");
        let _first = host.enter().await;
        let _second = hosts.get("https://a.example").enter().await;
        let third = tokio::time::timeout(Duration::from_millis(20), host.enter()).await;
        assert!(third.is_err());
        assert!(hosts.get("https://b.example").enter().await.is_some());
    }

    #[tokio::test]
    async fn quiet_hosts_get_nothing() {
        let hosts = Hosts::new(2);
        let host = hosts.get("https://a.example");
        host.quiet(Duration::from_millis(60));
        host.quiet(Duration::from_millis(5));
        let start = Instant::now();
        assert!(host.enter().await.is_some());
        assert!(start.elapsed() >= Duration::from_millis(60));
    }
}
