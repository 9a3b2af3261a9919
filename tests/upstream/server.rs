//! A registry that answers as a test tells it to, well or badly, and remembers what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dray::oci::{Descriptor, Digest};
use dray::upstream::{CredentialStore, Options, RetryPolicy, Timeouts, Upstream};
use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::command::Run as _;

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Path and query; of a request for a tunnel the server.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// How many requests for the same target came before this one.
    pub(crate) earlier: usize,
}

impl Asked {
    /// A header's value; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The first byte that is asked for.
    pub(crate) fn from(&self) -> usize {
        let range = self.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
        range.map_or(0, |first| first.parse().unwrap())
    }
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Properly,
    /// The connection is closed before the promised length.
    Cut,
    /// The connection stays open and nothing comes any more.
    Silence,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
    /// The promised length; without it the body is chunked.
    length: Option<usize>,
    end: End,
    delay: Duration,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let length = Some(body.len());
        Self { status, headers: Vec::new(), body, length, end: End::Properly, delay: Duration::ZERO }
    }

    pub(crate) fn ok(body: impl Into<Bytes>) -> Self {
        Self::new(200, body)
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::new(status, Bytes::new())
    }

    /// The error document of the distribution specification.
    pub(crate) fn error(status: u16, code: &str) -> Self {
        Self::new(status, format!(r#"{{"errors":[{{"code":"{code}","message":"no luck"}}]}}"#))
    }

    /// `content` from the byte that was asked for, as servers with ranges send it.
    pub(crate) fn range(content: &Bytes, asked: &Asked) -> Self {
        match asked.from() {
            0 => Self::ok(content.clone()),
            from => Self::new(206, content.slice(from..))
                .with("content-range", format!("bytes {from}-{}/{}", content.len() - 1, content.len())),
        }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends only the first `length` bytes of the body, then closes the connection.
    pub(crate) fn cut_after(mut self, length: usize) -> Self {
        self.body.truncate(length);
        self.end = End::Cut;
        self
    }

    /// Sends only the first `length` bytes of the body, then nothing more.
    pub(crate) fn silent_after(mut self, length: usize) -> Self {
        self.body.truncate(length);
        self.end = End::Silence;
        self
    }

    /// Does not say how long the body is.
    pub(crate) fn chunked(mut self) -> Self {
        self.length = None;
        self
    }

    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    fn into_response(self) -> Response<Body> {
        let mut response = Response::builder().status(self.status);
        if let Some(length) = self.length {
            response = response.header("content-length", length);
        }
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        let chunks: Vec<_> = self.body.chunks(16 * 1024).map(|chunk| self.body.slice_ref(chunk)).collect();
        let sent = stream::iter(chunks.into_iter().map(|chunk| Ok(Frame::data(chunk))));
        let end = stream::once(async move {
            match self.end {
                End::Properly => None,
                End::Cut => {
                    // What was written before must have left, or the client may not see it.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Some(Err("the connection is cut on purpose"))
                }
                End::Silence => std::future::pending().await,
            }
        });
        let body = StreamBody::new(sent.chain(end.filter_map(std::future::ready))).boxed_unsync();
        response.body(body).unwrap()
    }
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, &'static str>;
type Handler = Box<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// What the connections of a server share.
struct State {
    handler: Handler,
    asked: Mutex<Vec<Asked>>,
    in_flight: AtomicUsize,
    busiest: AtomicUsize,
}

/// A server on the loopback network; it ends when this is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<State>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// A server without TLS.
    pub(crate) async fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(Box::new(handler), None).await
    }

    /// A server with the certificate that `identity` holds.
    pub(crate) async fn start_tls(
        identity: &TlsIdentity,
        handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Box::new(handler), Some(identity.acceptor())).await
    }

    async fn listen(handler: Handler, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            handler,
            asked: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            busiest: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (tls, state) = (tls.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    match tls {
                        None => serve(socket, state).await,
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                serve(socket, state).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, state, task: task.abort_handle() }
    }

    /// `127.0.0.1:40123`
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Everything that was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    /// The paths and queries of everything that was asked so far.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.target).collect()
    }

    /// The most requests that were in work at the same time.
    pub(crate) fn busiest(&self) -> usize {
        self.state.busiest.load(Ordering::SeqCst)
    }
}

async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin, state: Arc<State>) {
    let service = service_fn(|request| answer(request, Arc::clone(&state)));
    // A connection that ends badly is what many tests are about.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let mut asked = Asked {
        method: head.method,
        target: head.uri.path_and_query().map_or_else(|| head.uri.to_string(), ToString::to_string),
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes(),
        earlier: 0,
    };
    {
        let mut all = state.asked.lock().unwrap();
        asked.earlier = all.iter().filter(|other| other.target == asked.target).count();
        all.push(asked.clone());
    }
    let reply = (state.handler)(&asked);
    let in_flight = state.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
    state.busiest.fetch_max(in_flight, Ordering::SeqCst);
    tokio::time::sleep(reply.delay).await;
    state.in_flight.fetch_sub(1, Ordering::SeqCst);
    Ok(reply.into_response())
}

/// A self-signed certificate for 127.0.0.1, made by openssl.
pub(crate) struct TlsIdentity {
    folder: tempfile::TempDir,
}

impl TlsIdentity {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cnf"), "[req]\ndistinguished_name = dn\n[dn]\n").unwrap();
        Command::new("openssl")
            .current_dir(folder.path())
            .args(["req", "-x509", "-config", "cnf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args([
                "-nodes",
                "-keyout",
                "key.pem",
                "-out",
                "cert.pem",
                "-days",
                "2",
                "-subj",
                "/CN=dray test",
            ])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .succeed();
        Self { folder }
    }

    /// The certificate as a file for `Options::ca_files`.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    fn acceptor(&self) -> TlsAcceptor {
        let certificate = CertificateDer::from_pem_file(self.ca_file()).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.folder.path().join("key.pem")).unwrap();
        let config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Options that try three times without long pauses.
pub(crate) fn quick() -> Options {
    Options {
        retry: RetryPolicy {
            attempts: 3,
            first_pause: Duration::from_millis(2),
            longest_pause: Duration::from_millis(10),
            longest_retry_after: Duration::from_secs(5),
        },
        timeouts: Timeouts { connect: Duration::from_secs(5), idle: Duration::from_secs(5) },
        ..Options::default()
    }
}

/// Options that also read `server` without TLS.
pub(crate) fn plain(server: &Server) -> Options {
    let mut options = quick();
    options.plain_http.insert(server.address());
    options
}

/// Reads `server` without TLS and without credentials.
pub(crate) fn upstream(server: &Server) -> Upstream {
    Upstream::new(plain(server)).unwrap()
}

/// A store with one document, called `auth.json`.
pub(crate) fn credentials(document: &str) -> CredentialStore {
    let mut store = CredentialStore::new();
    store.add("auth.json", document.as_bytes()).unwrap();
    store
}

/// Bytes without a pattern that a mistake could hide in.
pub(crate) fn content(length: usize) -> Bytes {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let next = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    next.flatten().take(length).collect()
}

/// The descriptor of a layer that holds `content`.
pub(crate) fn layer(content: &[u8]) -> Descriptor {
    Descriptor::new("application/vnd.oci.image.layer.v1.tar", Digest::sha256(content), content.len() as u64)
}
