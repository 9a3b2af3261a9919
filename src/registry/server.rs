//! Connections: accepting them, limiting them, and letting them finish.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::store::{Content, Store};

use super::access::AccessLog;
use super::extras::Extras;
use super::naming::Naming;
use super::receive::Incoming;
use super::service::Service;
use super::sessions::Sessions;
use super::splice::{self, Splices};
use super::stream::Guarded;
use super::tls::Tls;
use super::users::Users;
use super::wants::Wants;

/// How long to wait when the process has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often abandoned uploads are looked for.
const SWEEP: Duration = Duration::from_hours(1);

/// How often it is written to disk that something was asked for again.
const SAVE: Duration = Duration::from_secs(5);

/// How often wants are forgotten that another process has met.
const FORGET: Duration = Duration::from_mins(1);

/// How a registry serves.
#[derive(Clone)]
pub struct Config {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// How names are understood.
    pub naming: Naming,
    /// What clients may take up.
    pub limits: Limits,
    /// The store that clients may push to and delete from; usually the content that is served. None is read-only.
    pub push: Option<Store>,
    /// Where to keep what was asked for in vain; None keeps nothing.
    pub wants: Option<Arc<Wants>>,
    /// Certificate and key; None serves plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// Who may push; None lets everybody do what is allowed at all.
    pub users: Option<Arc<Users>>,
    /// Whether only users may pull.
    pub private: bool,
    /// Receives an entry for each request.
    pub access_log: Option<AccessLog>,
    /// Answers requests for what is neither an image nor a plain file.
    pub extras: Option<Arc<dyn Extras>>,
}

impl Default for Config {
    /// Listens on loopback, port 5000.
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 5000).into(),
            naming: Naming::default(),
            limits: Limits::default(),
            push: None,
            wants: None,
            tls: None,
            users: None,
            private: false,
            access_log: None,
            extras: None,
        }
    }
}

/// What clients may take up of a server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long the head of a request may take to arrive, and how long a connection may be idle before the next one.
    pub header_time: Duration,
    /// How long a TLS handshake may take.
    pub handshake_time: Duration,
    /// How long a client may send nothing in the middle of a body.
    pub body_time: Duration,
    /// How long a client may take nothing in the middle of a response.
    pub write_time: Duration,
    /// How many bytes of the head of a request may arrive without its end. What comes with the last of them counts, so that
    /// a head of up to twice the size may be taken.
    pub header_bytes: usize,
    /// How many connections there may be.
    pub connections: usize,
    /// How many of them may come from one address.
    pub connections_per_address: usize,
    /// How long transfers may take to finish when the server is told to stop.
    pub drain: Duration,
    /// How long an upload that nobody adds to is kept.
    pub upload_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_time: Duration::from_mins(1),
            handshake_time: Duration::from_secs(15),
            body_time: Duration::from_mins(1),
            write_time: Duration::from_mins(2),
            header_bytes: 64 * 1024,
            connections: 4096,
            connections_per_address: 1024,
            drain: Duration::from_mins(1),
            upload_age: Duration::from_hours(24),
        }
    }
}

/// A registry that has its port and waits to be run.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
    tls: Option<Arc<Tls>>,
    service: Arc<Service>,
}

impl Server {
    /// Takes the port. Clients can connect from now on; they are answered once [`Server::run`] is called.
    pub async fn bind(content: Arc<dyn Content>, config: Config) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {}: {error}", config.listen))
        })?;
        let address = listener.local_addr()?;
        let uploads = config.push.clone().map(|store| Arc::new(Sessions::new(store)));
        let service = Service {
            content,
            naming: Arc::new(config.naming),
            push: config.push,
            uploads,
            wants: config.wants,
            indexes: Arc::default(),
            readers: Arc::default(),
            users: config.users,
            private: config.private,
            metrics: Arc::default(),
            held: Arc::default(),
            log: config.access_log,
            sums: Arc::default(),
            extras: config.extras,
            secure: config.tls.is_some(),
        };
        let service = Arc::new(service);
        Ok(Self { listener, address, limits: config.limits, tls: config.tls, service })
    }

    /// The address and the port that were taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes, and then until the transfers under way are finished or the time for that is
    /// over.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let graceful = GracefulShutdown::new();
        let mut chores = JoinSet::new();
        if let Some(uploads) = self.service.uploads.clone() {
            chores.spawn(sweep(uploads, self.limits.upload_age));
        }
        if let Some(wants) = self.service.wants.clone() {
            chores.spawn(save(wants.clone()));
            chores.spawn(forget(wants, self.service.content.clone()));
        }
        let connections = Arc::new(Connections::new(&self.limits));
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let (stream, peer) = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!("cannot accept a connection: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
                () = &mut shutdown => break,
            };
            if let Some(pass) = connections.clone().enter(peer.ip()) {
                self.serve(stream, peer.ip(), pass, &graceful);
            } else {
                self.service.metrics.refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("too many connections, refused one from {}", peer.ip());
            }
        }
        drop(self.listener);
        chores.shutdown().await;
        if tokio::time::timeout(self.limits.drain, graceful.shutdown()).await.is_err() {
            tracing::warn!("stopped with transfers unfinished");
        }
        if let Some(wants) = self.service.wants.clone() {
            save_once(wants).await;
        }
    }

    fn serve(&self, stream: TcpStream, peer: IpAddr, pass: Pass, graceful: &GracefulShutdown) {
        // Manifests are small and followed by the next question: waiting to fill a packet would only delay it.
        let _ = stream.set_nodelay(true);
        let (service, limits, watcher) = (self.service.clone(), self.limits.clone(), graceful.watcher());
        let tls = self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.config()));
        let metrics = self.service.metrics.clone();
        metrics.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            match tls {
                None => {
                    let (stream, splices) = splice::plain(stream);
                    speak(stream, splices, peer, service, &limits, watcher).await;
                }
                // The handshake is the client's doing as well, so it is waited for here and not where others wait.
                Some(tls) => match tokio::time::timeout(limits.handshake_time, tls.accept(stream)).await {
                    Ok(Ok(stream)) => speak(stream, None, peer, service, &limits, watcher).await,
                    Ok(Err(error)) => tracing::debug!("no TLS with {peer}: {error}"),
                    Err(_) => tracing::debug!("no TLS with {peer}: it took too long"),
                },
            }
            metrics.connections.fetch_sub(1, Ordering::Relaxed);
            drop(pass);
        });
    }
}

/// Speaks HTTP on a connection until one side has enough.
async fn speak<S>(
    stream: S,
    splices: Option<Splices>,
    peer: IpAddr,
    service: Arc<Service>,
    limits: &Limits,
    watcher: Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let body_time = limits.body_time;
    let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (service, splices) = (service.clone(), splices.clone());
        async move {
            let (parts, body) = request.into_parts();
            let mut response = service.answer(parts, peer, Incoming::new(body, body_time)).await;
            if let Some(splices) = &splices {
                response.body_mut().splice(splices);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.header_bytes)
        // Splicing relies on it that places go out as they are.
        .writev(true)
        .serve_connection(TokioIo::new(Guarded::new(stream, limits.write_time)), answer);
    // Clients that go away in the middle are normal: containerd asks for the rest of a blob and takes 8 MiB of it.
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!("connection ended: {error}");
    }
}

/// Removes uploads that nobody will finish, now and then.
async fn sweep(uploads: Arc<Sessions>, age: Duration) {
    let mut now_and_then = tokio::time::interval(SWEEP);
    loop {
        now_and_then.tick().await;
        let uploads = uploads.clone();
        // It reports its failures itself.
        let _ = tokio::task::spawn_blocking(move || uploads.expire(age)).await;
    }
}

/// Writes new wants to disk, now and then.
async fn save(wants: Arc<Wants>) {
    let mut now_and_then = tokio::time::interval(SAVE);
    loop {
        now_and_then.tick().await;
        save_once(wants.clone()).await;
    }
}

/// Forgets wants that have come, now and then: when they are deleted later, nobody asked for them since.
async fn forget(wants: Arc<Wants>, content: Arc<dyn Content>) {
    let mut now_and_then = tokio::time::interval(FORGET);
    loop {
        now_and_then.tick().await;
        let (wants, content) = (wants.clone(), content.clone());
        let _ = tokio::task::spawn_blocking(move || wants.unmet(&*content)).await;
    }
}

async fn save_once(wants: Arc<Wants>) {
    let saved = tokio::task::spawn_blocking(move || wants.save()).await;
    if let Err(error) = saved.map_err(io::Error::other).flatten() {
        tracing::warn!("cannot save what was asked for in vain: {error}");
    }
}

/// Counts connections, in all and by address.
struct Connections {
    limit: usize,
    limit_per_address: usize,
    open: Mutex<Open>,
}

/// The connections that are open. An address without any has no entry, so that refused ones leave nothing behind.
#[derive(Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The right to one connection, until it is dropped.
struct Pass {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Connections {
    fn new(limits: &Limits) -> Self {
        Self {
            limit: limits.connections,
            limit_per_address: limits.connections_per_address,
            open: Mutex::default(),
        }
    }

    fn enter(self: Arc<Self>, address: IpAddr) -> Option<Pass> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let from_address = open.by_address.get(&address).copied().unwrap_or_default();
        if open.all >= self.limit || from_address >= self.limit_per_address {
            return None;
        }
        open.all += 1;
        open.by_address.insert(address, from_address + 1);
        drop(open);
        Some(Pass { connections: self, address })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted() {
        let limits = Limits { connections: 3, connections_per_address: 2, ..Limits::default() };
        let connections = Arc::new(Connections::new(&limits));
        let enter = |last: u8| connections.clone().enter([10, 0, 0, last].into());
        let first = enter(1).unwrap();
        let _second = enter(1).unwrap();
        assert!(enter(1).is_none(), "two from one address are enough");
        let _third = enter(2).unwrap();
        assert!(enter(3).is_none(), "three in all are enough");
        drop(first);
        assert!(enter(1).is_some());
    }

    #[test]
    fn refused_addresses_are_not_remembered() {
        let limits = Limits { connections: 1, connections_per_address: 1, ..Limits::default() };
        let connections = Arc::new(Connections::new(&limits));
        let enter = |last: u8| connections.clone().enter([10, 0, 0, last].into());
        let only = enter(1).unwrap();
        assert!((2..=255).all(|last| enter(last).is_none()));
        assert_eq!(connections.open.lock().unwrap().by_address.len(), 1);
        drop(only);
        let open = connections.open.lock().unwrap();
        assert_eq!((open.all, open.by_address.len()), (0, 0));
    }
}
