//! A slow line to the upstream: a TCP relay with a byte rate, which counts what came through.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Relays connections to a server for as long as it lives.
pub(crate) struct Proxy {
    address: String,
    line: Arc<Line>,
}

/// What all connections share.
struct Line {
    rate: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    since: Instant,
    spent: AtomicU64,
    closed: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// A line to `upstream` (`127.0.0.1:40123`) that lets `rate` bytes per second through, all connections together.
    pub(crate) fn start(upstream: &str, rate: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let line = Arc::new(Line {
            rate: AtomicU64::new(rate),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            since: Instant::now(),
            spent: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let shared = Arc::clone(&line);
        let upstream = upstream.to_owned();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.closed.load(Ordering::Relaxed) {
                    break;
                }
                if let Ok(server) = TcpStream::connect(&upstream) {
                    relay(client, server, &shared);
                }
            }
        });
        Self { address, line }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// How many bytes came from the upstream so far, headers included.
    pub(crate) fn received(&self) -> u64 {
        self.line.received.load(Ordering::Relaxed)
    }

    /// How many bytes went to the upstream so far, headers included.
    pub(crate) fn sent(&self) -> u64 {
        self.line.sent.load(Ordering::Relaxed)
    }

    /// Sets another rate, from now on.
    pub(crate) fn set_rate(&self, rate: u64) {
        self.line.rate.store(rate, Ordering::Relaxed);
    }

    /// Breaks every connection that is open; new ones are accepted.
    pub(crate) fn cut(&self) {
        for stream in self.line.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Waits until `bytes` came through.
    #[track_caller]
    pub(crate) fn wait_for(&self, bytes: u64) {
        wait_until(bytes, || self.received());
    }

    /// Waits until `bytes` went through to the upstream.
    #[track_caller]
    pub(crate) fn wait_for_sent(&self, bytes: u64) {
        wait_until(bytes, || self.sent());
    }
}

#[track_caller]
fn wait_until(bytes: u64, count: impl Fn() -> u64) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while count() < bytes {
        assert!(Instant::now() < deadline, "only {} of {bytes} bytes came through", count());
        thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.closed.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts, so that it sees the flag and lets the port go.
        let _ = TcpStream::connect(&self.address);
        self.cut();
    }
}

impl Line {
    /// Takes `bytes` off the line's time: sleeps until they would have come through.
    fn pace(&self, bytes: u64, counter: &AtomicU64) {
        counter.fetch_add(bytes, Ordering::Relaxed);
        let cost = bytes.saturating_mul(1_000_000_000) / self.rate.load(Ordering::Relaxed).max(1);
        let now = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // An idle line saves nothing up: the time that is due never lies in the past.
        let mut due = 0;
        let _ = self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spent| {
            due = spent.max(now) + cost;
            Some(due)
        });
        thread::sleep(Duration::from_nanos(due.saturating_sub(now)));
    }
}

fn relay(client: TcpStream, server: TcpStream, line: &Arc<Line>) {
    let (Ok(client_again), Ok(server_again)) = (client.try_clone(), server.try_clone()) else { return };
    line.open.lock().unwrap().extend(client.try_clone());
    let [up, down] = [Arc::clone(line), Arc::clone(line)];
    thread::spawn(move || copy(client_again, server_again, |bytes| up.pace(bytes, &up.sent)));
    thread::spawn(move || copy(server, client, |bytes| down.pace(bytes, &down.received)));
}

fn copy(mut from: TcpStream, mut to: TcpStream, paced: impl Fn(u64)) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        paced(count as u64);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
