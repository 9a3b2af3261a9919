//! A site for a test: a store with images, and a registry that serves it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use dray::oci::{Algorithm, Descriptor, Digest, Hasher, RepositoryName, Tag, media_type};
use dray::registry::{Config, Server, Wants};
use dray::store::{Store, Writer};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::client::{Connection, Response};

/// A running registry, which is stopped when this is dropped.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    pub(crate) store: Store,
    directory: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    /// A site that clients may push to.
    pub(crate) fn open_to_pushes() -> Self {
        let mut site = Self::new();
        site.restart();
        site
    }

    /// Stops the server and starts another one that takes pushes, as if the process had been restarted.
    pub(crate) fn restart(&mut self) {
        self.reopen(Config::default());
    }

    /// The same with other limits, users or certificates.
    pub(crate) fn reopen(&mut self, config: Config) {
        self.ask_to_stop();
        self.wait();
        let store = Store::open(self.store.path()).unwrap();
        let wants = Some(Arc::new(Wants::open(&store.wants_file()).unwrap()));
        self.start(Config { push: Some(store), wants, ..config });
    }

    pub(crate) fn with(config: Config) -> Self {
        Self::below(tempfile::tempdir().unwrap(), config)
    }

    /// A site whose store is in the folder `store` of `directory`.
    pub(crate) fn below(directory: TempDir, config: Config) -> Self {
        let store = Store::create(&directory.path().join("store")).unwrap();
        let mut site =
            Self { address: ([127, 0, 0, 1], 0).into(), store, directory, stop: None, thread: None };
        site.start(config);
        site
    }

    /// Starts to serve, on any free port.
    pub(crate) fn start(&mut self, config: Config) {
        let config = Config { listen: ([127, 0, 0, 1], 0).into(), ..config };
        let store = config.push.clone().unwrap_or_else(|| Store::open(self.store.path()).unwrap());
        let (told, address) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        self.thread = Some(std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::bind(Arc::new(store), config).await.unwrap();
                told.send(server.local_addr()).unwrap();
                server.run(async { _ = stopped.await }).await;
            });
        }));
        self.address = address.recv().unwrap();
        self.stop = Some(stop);
    }

    /// Asks the server to stop, without waiting for it.
    pub(crate) fn ask_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits until the server has stopped.
    pub(crate) fn wait(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    pub(crate) fn request(&self, method: &str, target: &str, body: &[u8]) -> Response {
        self.connect().request(method, target, &[], body)
    }

    pub(crate) fn get(&self, target: &str) -> Response {
        self.connect().request("GET", target, &[], b"")
    }

    pub(crate) fn head(&self, target: &str) -> Response {
        self.connect().request("HEAD", target, &[], b"")
    }

    pub(crate) fn get_with(&self, target: &str, headers: &[(&str, &str)]) -> Response {
        self.connect().request("GET", target, headers, b"")
    }

    /// The file that holds the content `digest`.
    pub(crate) fn blob_file(&self, digest: &Digest) -> PathBuf {
        let shard = self.directory.path().join("store/blobs").join(digest.algorithm().name());
        shard.join(&digest.hex()[..2]).join(digest.hex())
    }

    pub(crate) fn writer(&self) -> Writer {
        self.store.writer("test", Duration::from_secs(10)).unwrap()
    }

    /// Puts a blob into a repository.
    pub(crate) fn blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let writer = self.writer();
        let mut blob = writer.begin_blob(&digest, bytes.len() as u64).unwrap();
        blob.write(bytes).unwrap();
        blob.commit().unwrap();
        let mut batch = writer.batch();
        batch.link_blob(&name(repository), &digest).unwrap();
        batch.commit().unwrap();
        digest
    }

    /// Puts a manifest under a tag; `note` makes it differ from others.
    pub(crate) fn image(&self, repository: &str, tag: &str, note: &str) -> Image {
        let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
        self.manifest(
            repository,
            Some(tag),
            &serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config,
                "layers": [], "annotations": {"note": note}}),
        )
    }

    pub(crate) fn manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        manifest: &serde_json::Value,
    ) -> Image {
        let bytes = Bytes::from(serde_json::to_vec(manifest).unwrap());
        let descriptor = Descriptor::of(manifest["mediaType"].as_str().unwrap(), &bytes);
        let writer = self.writer();
        let mut batch = writer.batch();
        batch.put_manifest(&name(repository), &descriptor.digest, &descriptor.media_type, &bytes).unwrap();
        if let Some(tag) = tag {
            batch.set_tag(&name(repository), &tag.parse::<Tag>().unwrap(), &descriptor).unwrap();
        }
        batch.commit().unwrap();
        Image { descriptor, bytes }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.ask_to_stop();
        self.wait();
    }
}

/// A manifest that was put into a store.
pub(crate) struct Image {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Bytes,
}

impl Image {
    pub(crate) fn digest(&self) -> String {
        self.descriptor.digest.to_string()
    }
}

pub(crate) fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

pub(crate) fn sha512(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(bytes);
    hasher.finish()
}
