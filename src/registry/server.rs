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
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::store::{Content, Store};

use super::access::AccessLog;
use super::extras::Extras;
use super::metrics::Metrics;
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

/// How much is read of a request that came without TLS.
const MAX_UNREAD: u64 = 64 * 1024;

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

/// How long a connection of a server that is stopping may take to its first request.
const FIRST: Duration = Duration::from_secs(1);

/// How long transfers that began while the server was stopping may take to finish.
const LATE: Duration = Duration::from_secs(10);

/// A registry that has its port and waits to be run.
pub struct Server {
    listener: TcpListener,
    /// Whether connections are taken until the last transfer ends.
    keeps_listening: bool,
    address: SocketAddr,
    front: Front,
}

/// What connections are given to.
struct Front {
    limits: Limits,
    tls: Option<Arc<Tls>>,
    service: Arc<Service>,
    connections: Arc<Connections>,
}

/// Tells connections to end after the request that they are at.
#[derive(Debug)]
struct Stop(watch::Sender<()>);

impl Default for Stop {
    fn default() -> Self {
        Self(watch::Sender::new(()))
    }
}

impl Stop {
    /// Tells all connections, and waits until they have ended.
    async fn finish(self) {
        let _ = self.0.send(());
        self.0.closed().await;
    }
}

/// Counts the requests that are being answered. Clones share the count.
#[derive(Clone, Debug)]
pub struct Transfers(Arc<Metrics>);

impl Transfers {
    /// How many there are now.
    pub fn count(&self) -> u64 {
        self.0.under_way.load(Ordering::Relaxed)
    }
}

impl Server {
    /// Takes the port of `config`. Clients can connect from now on; they are answered once [`Server::run`] is called.
    pub async fn bind(content: Arc<dyn Content>, config: Config) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {}: {error}", config.listen))
        })?;
        Self::with(listener, content, config)
    }

    /// Serves on a socket that listens already; the address of `config` does not matter. To be called in a runtime.
    pub fn on(
        listener: std::net::TcpListener,
        content: Arc<dyn Content>,
        config: Config,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::with(TcpListener::from_std(listener)?, content, config)
    }

    fn with(listener: TcpListener, content: Arc<dyn Content>, config: Config) -> io::Result<Self> {
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
            tls: config.tls.clone(),
        };
        let connections = Arc::new(Connections::new(&config.limits));
        let front = Front { limits: config.limits, tls: config.tls, service: Arc::new(service), connections };
        Ok(Self { listener, keeps_listening: false, address, front })
    }

    /// Takes and answers connections until the last transfer ends, also when the server is told to stop. That is right for
    /// a socket that a service manager holds, because its next server starts only when this one has ended. A socket of the
    /// server's own is closed at once instead, so that the next server can have the port.
    #[must_use]
    pub fn keep_listening(self) -> Self {
        Self { keeps_listening: true, ..self }
    }

    /// The address and the port that were taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns what counts the requests that are being answered.
    pub fn transfers(&self) -> Transfers {
        Transfers(self.front.service.metrics.clone())
    }

    /// Serves until `shutdown` completes, and then until the transfers under way are finished or the time for that is
    /// over.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, keeps_listening, front, .. } = self;
        let mut chores = JoinSet::new();
        if let Some(uploads) = front.service.uploads.clone() {
            chores.spawn(sweep(uploads, front.limits.upload_age));
        }
        if let Some(wants) = front.service.wants.clone() {
            chores.spawn(save(wants.clone()));
            chores.spawn(forget(wants, front.service.content.clone()));
        }
        if let Some(tls) = front.tls.clone() {
            chores.spawn(watch_certificate(tls));
        }
        let (early, late) = (Stop::default(), Stop::default());
        front.take_until(&listener, shutdown, &early, true).await;
        let drained = tokio::time::timeout(front.limits.drain, early.finish());
        let drained = if keeps_listening {
            let drained = front.take_until(&listener, drained, &late, false).await;
            drop(listener);
            drained
        } else {
            drop(listener);
            drained.await
        };
        chores.shutdown().await;
        if drained.is_err() || tokio::time::timeout(LATE, late.finish()).await.is_err() {
            tracing::warn!("stopped with transfers unfinished");
        }
        if let Some(wants) = front.service.wants.clone() {
            save_once(wants).await;
        }
    }
}

impl Front {
    /// Takes connections until `until` completes, and returns what it came to. Those of a server that is stopping do not
    /// stay after their first request.
    async fn take_until<T>(
        &self,
        listener: &TcpListener,
        until: impl Future<Output = T>,
        stop: &Stop,
        stays: bool,
    ) -> T {
        let mut until = std::pin::pin!(until);
        loop {
            let (stream, peer) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!("cannot accept a connection: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
                result = &mut until => return result,
            };
            if let Some(pass) = self.connections.clone().enter(peer.ip()) {
                self.serve(stream, peer.ip(), pass, stop.0.subscribe(), stays);
            } else {
                self.service.metrics.refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("too many connections, refused one from {}", peer.ip());
            }
        }
    }

    fn serve(&self, stream: TcpStream, peer: IpAddr, pass: Pass, stop: watch::Receiver<()>, stays: bool) {
        // Manifests are small and followed by the next question: waiting to fill a packet would only delay it.
        let _ = stream.set_nodelay(true);
        let (service, limits) = (self.service.clone(), self.limits.clone());
        let tls = self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.config()));
        let metrics = self.service.metrics.clone();
        metrics.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            match tls {
                None => {
                    let (stream, splices) = splice::plain(stream);
                    speak(stream, splices, peer, service, &limits, stop, stays).await;
                }
                // The handshake is the client's doing as well, so it is waited for here and not where others wait.
                Some(tls) => match tokio::time::timeout(limits.handshake_time, shake_hands(&tls, stream))
                    .await
                {
                    Ok(Ok(Some(stream))) => speak(stream, None, peer, service, &limits, stop, stays).await,
                    Ok(Ok(None)) => tracing::debug!("{peer} does not speak TLS, and was told to"),
                    Ok(Err(error)) => tracing::debug!("no TLS with {peer}: {error}"),
                    Err(_) => tracing::debug!("no TLS with {peer}: it took too long"),
                },
            }
            metrics.connections.fetch_sub(1, Ordering::Relaxed);
            drop(pass);
        });
    }
}

/// Begins TLS with a client. Returns `None` if it speaks HTTP without TLS, which it is told.
async fn shake_hands(
    tls: &TlsAcceptor,
    mut stream: TcpStream,
) -> io::Result<Option<tokio_rustls::server::TlsStream<TcpStream>>> {
    let mut first = [0];
    // Every TLS record begins with a small number (RFC 8446, section 5.1), every request with a method.
    if stream.peek(&mut first).await? == 0 || !first[0].is_ascii_uppercase() {
        return tls.accept(stream).await.map(Some);
    }
    let said = "this port speaks HTTPS, and the request came as HTTP: use https://\n";
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        said.len()
    );
    stream.write_all((head + said).as_bytes()).await?;
    stream.shutdown().await?;
    // With something left unread the answer would be lost.
    tokio::io::copy(&mut stream.take(MAX_UNREAD), &mut tokio::io::sink()).await?;
    Ok(None)
}

/// Speaks HTTP on a connection until one side has enough.
async fn speak<S>(
    stream: S,
    splices: Option<Splices>,
    peer: IpAddr,
    service: Arc<Service>,
    limits: &Limits,
    mut stop: watch::Receiver<()>,
    stays: bool,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let body_time = limits.body_time;
    let begun = Arc::new(Notify::new());
    let asked = begun.clone();
    let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        asked.notify_one();
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
        .keep_alive(stays)
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.header_bytes)
        // Splicing relies on it that places go out as they are.
        .writev(true)
        .serve_connection(TokioIo::new(Guarded::new(stream, limits.write_time)), answer);
    let mut connection = std::pin::pin!(connection);
    let told = async {
        // Without the sender the server is gone.
        let _ = stop.changed().await;
        // Whoever has only just connected is about to ask.
        let _ = tokio::time::timeout(FIRST, begun.notified()).await;
    };
    let early = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = told => None,
    };
    let ended = if let Some(ended) = early {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    // Clients that go away in the middle are normal: containerd asks for the rest of a blob and takes 8 MiB of it.
    if let Err(error) = ended {
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

/// Warns when the certificate is near its end, now and every day.
async fn watch_certificate(tls: Arc<Tls>) {
    let mut every_day = tokio::time::interval(Duration::from_hours(24));
    loop {
        every_day.tick().await;
        if let Some(warning) = tls.warning(Timestamp::now()) {
            tracing::warn!("{warning}");
        }
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
