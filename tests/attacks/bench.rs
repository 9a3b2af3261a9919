//! Where attacks are tried: a store that has something, a trusted key, and the three ways in.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use dray::{
    bundle::{Bundle, BundleError, ImportError, ImportOptions, ServeError, ServedBundles, import},
    oci::{Descriptor, Digest, media_type},
    store::{Author, Blob, Content, ContentError, Store},
    trust::{self, Attestation, Claim, KeyId, Policy, PrivateKey, Signatures},
};
use jiff::Timestamp;
use tempfile::TempDir;

use crate::{
    archive::{Archive, Part},
    sample::{self, Sample},
    support::site::files_below,
};

/// An attack: the files that somebody might bring, all of which are refused.
pub(crate) struct Attack {
    /// What it is.
    pub(crate) name: &'static str,
    /// Makes the files.
    pub(crate) make: fn() -> Vec<Vec<u8>>,
    /// Which commands can see it, and what the site asks for.
    pub(crate) sight: Sight,
    /// What every message must say, besides the name of the file.
    pub(crate) says: &'static [&'static str],
}

/// Who sees an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Whoever opens the bundle or checks who signed it.
    AtOnce,
    /// The same, at a site where two people release.
    TwoPeople,
    /// Whoever reads the content. What is served from the file is read before it leaves.
    InContent,
    /// Whoever reads the manifests, as an import and a server do.
    InManifests,
    /// Whoever verifies the whole file; nobody else ever reads these bytes.
    BesideContent,
    /// An import, which knows what the store has.
    InStore,
    /// Whoever knows the time.
    InTime,
}

/// Makes a table of attacks, and a test of each.
macro_rules! attacks {
    ($($name:ident: $sight:ident, $says:expr, $make:expr;)*) => {
        pub(super) const ATTACKS: &[crate::attacks::bench::Attack] = &[$(crate::attacks::bench::Attack {
            name: stringify!($name),
            make: $make,
            sight: crate::attacks::bench::Sight::$sight,
            says: &$says,
        }),*];
        $(
            #[test]
            fn $name() {
                let attack = ATTACKS.iter().find(|attack| attack.name == stringify!($name)).unwrap();
                crate::attacks::bench::Bench::new().refuses(attack);
            }
        )*
    };
}
pub(crate) use attacks;

/// The good bundle, signed by the trusted key.
pub(crate) fn good() -> Archive {
    Sample::new().signed_by(&[sample::key()])
}

/// The good bundle after `change`, as a whole.
pub(crate) fn changed(change: impl FnOnce(&mut Archive)) -> Vec<Vec<u8>> {
    let mut archive = good();
    change(&mut archive);
    vec![archive.to_bytes()]
}

/// The bundle of another lock, signed by the trusted key.
pub(crate) fn locked(change: impl FnOnce(&mut Sample)) -> Vec<Vec<u8>> {
    let mut sample = Sample::new();
    change(&mut sample);
    vec![sample.signed_by(&[sample::key()]).to_bytes()]
}

/// Where the lock stands in an archive.
pub(crate) fn lock_position(archive: &Archive) -> usize {
    archive.parts.iter().position(|part| part.content.starts_with(b"{\n  \"schemaVersion\"")).unwrap()
}

/// Bundles whose locks are these texts. Everything that names them is right, and the trusted key has signed it.
pub(crate) fn written(locks: impl IntoIterator<Item = String>) -> Vec<Vec<u8>> {
    let one = |text: String| {
        let mut archive = Sample::new().archive(None);
        let at = lock_position(&archive);
        archive.replace(at, text.into_bytes());
        sign(&mut archive, &sample::key());
        archive.to_bytes()
    };
    locks.into_iter().map(one).collect()
}

/// The text of the good lock with `from` replaced, once for each of `to`.
pub(crate) fn relocked(from: &str, to: &[&str]) -> Vec<Vec<u8>> {
    let text = String::from_utf8(Sample::new().lock.to_json()).unwrap();
    assert!(text.contains(from), "{from} is not in the lock:\n{text}");
    written(to.iter().map(|to| text.replacen(from, to, 1)))
}

/// The bundle index that `index.json` names.
pub(crate) fn bundle_index(archive: &Archive) -> Descriptor {
    let index: serde_json::Value = serde_json::from_slice(archive.content("index.json").unwrap()).unwrap();
    serde_json::from_value(index["manifests"][0].clone()).unwrap()
}

/// Signs an unsigned archive, whatever it is, as the writer of bundles would.
pub(crate) fn sign(archive: &mut Archive, key: &PrivateKey) {
    let mut index = bundle_index(archive);
    index.annotations.clear();
    let claim = Claim::new(&"bundles.dray.dev/plant-7".parse().unwrap(), &index.digest);
    let signatures = Signatures::create(std::slice::from_ref(key), &claim).unwrap();
    let attestation = signatures.attestations()[0].to_bytes(&claim.statement);
    let layer = Descriptor::of(trust::SIGSTORE_BUNDLE, &attestation);
    let documents = [
        trust::SIGNATURE_CONFIG.to_vec(),
        signatures.simple().to_bytes(&claim.payload),
        claim.payload,
        attestation,
        Attestation::manifest(layer, &index),
    ];
    let role = |document: &[u8], role: &str| {
        let mut descriptor = Descriptor::of(media_type::OCI_MANIFEST, document);
        descriptor.annotations.insert("dev.dray.role".into(), role.into());
        if role == "attestation" {
            descriptor.artifact_type = Some(trust::SIGSTORE_BUNDLE.into());
        }
        serde_json::to_string(&descriptor).unwrap()
    };
    let listed = format!("{},{}", role(&documents[1], "signatures"), role(&documents[4], "attestation"));
    let at = archive.position("index.json").unwrap();
    let text = String::from_utf8(archive.parts[at].content.clone()).unwrap();
    archive.replace(at, text.replacen("},{", &format!("}},{listed},{{"), 1).into_bytes());
    let parts = documents
        .map(|document| Part::file(&format!("blobs/sha256/{}", Digest::sha256(&document).hex()), document));
    archive.parts.splice(at..at, parts);
}

/// A site.
pub(crate) struct Bench {
    dir: TempDir,
    store: Store,
    trusted: PrivateKey,
}

impl Bench {
    /// A site that trusts the key of the sample and has sequence 5 of it.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trusted = sample::key();
        let store = Store::create(&dir.path().join("store")).unwrap();
        let bench = Self { dir, store, trusted };
        let mut earlier = Sample::of("earlier layer");
        earlier.lock.sequence = 5;
        earlier.lock.images.remove(0);
        let path = bench.write(&earlier.signed_by(&[sample::key()]).to_bytes());
        bench.import(&path, Sight::AtOnce).unwrap();
        fs::write(bench.path("release.pub"), bench.trusted.public().to_pem().unwrap()).unwrap();
        fs::write(bench.path("second.pub"), PrivateKey::generate().public().to_pem().unwrap()).unwrap();
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The file that an attacker brings.
    pub(crate) fn write(&self, bytes: &[u8]) -> PathBuf {
        let path = self.path("plant.tar");
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Opens a bundle and asks who signed it, as every command does first.
    fn open(
        &self,
        path: &Path,
        sight: Sight,
    ) -> Result<(Bundle, std::collections::BTreeSet<KeyId>), BundleError> {
        let bundle = Bundle::open(path)?;
        let (keys, threshold) = match sight {
            Sight::TwoPeople => (vec![self.trusted.public(), PrivateKey::generate().public()], 2),
            _ => (vec![self.trusted.public()], 1),
        };
        let signers = bundle.check_signatures(&Policy::new(keys, threshold).unwrap())?;
        Ok((bundle, signers))
    }

    /// What `dray verify` does.
    pub(crate) fn verify(&self, path: &Path, sight: Sight) -> Result<(), BundleError> {
        let (bundle, _) = self.open(path, sight)?;
        bundle.check_expiry(Timestamp::now())?;
        bundle.verify_blobs(2, &|_| ())
    }

    /// What `dray import` does.
    pub(crate) fn import(&self, path: &Path, sight: Sight) -> Result<(), ImportError> {
        let (bundle, verified_by) = self.open(path, sight)?;
        let author = Author { now: Timestamp::now(), ..Author::default() };
        let options = ImportOptions { verified_by, threads: 2, author, ..ImportOptions::default() };
        import(&bundle, &self.store, &options).map(drop)
    }

    /// What `dray serve --bundle` does, asked for everything that the bundle says it has.
    pub(crate) fn serve(&self, path: &Path, sight: Sight) -> Result<(), Served> {
        let (bundle, _) = self.open(path, sight)?;
        let lock = bundle.lock().clone();
        let served = ServedBundles::new(vec![bundle])?;
        let mut refused = Ok(());
        for image in &lock.images {
            let name = image.reference.name();
            for digest in image.manifests() {
                match served.manifest(name, digest) {
                    Ok(found) => assert!(found.is_none_or(|found| digest.matches(&found.bytes)), "{digest}"),
                    Err(error) => refused = Err(error.into()),
                }
            }
            for digest in image.contents() {
                match served.blob(name, digest) {
                    Ok(found) => refused = refused.and(left(digest, found)),
                    Err(error) => refused = Err(error.into()),
                }
            }
        }
        for file in &lock.files {
            match served.blob(&lock.name.repository(), &file.digest) {
                Ok(found) => refused = refused.and(left(&file.digest, found)),
                Err(error) => refused = Err(error.into()),
            }
        }
        refused
    }

    /// Every file of the store by its digest, but the lock, which says who was there.
    pub(crate) fn fingerprint(&self) -> BTreeMap<PathBuf, Digest> {
        let digest = |path: PathBuf| (path.clone(), Digest::sha256(&fs::read(path).unwrap()));
        files_below(self.store.path()).into_iter().map(digest).collect()
    }

    /// Panics unless every file of the attack is refused, everywhere where it can be seen. Says how many files that were.
    #[track_caller]
    pub(crate) fn refuses(&self, attack: &Attack) -> usize {
        let files = (attack.make)();
        assert!(!files.is_empty());
        let before = self.fingerprint();
        for (nth, bytes) in files.iter().enumerate() {
            let path = self.write(bytes);
            let said = |way: &str, message: String| {
                let named = attack.sight == Sight::InStore || way == "serve";
                assert!(named || message.contains("plant.tar"), "{message}");
                for word in attack.says {
                    assert!(
                        message.contains(word),
                        "{} {nth}: {way} does not say {word:?}: {message}",
                        attack.name
                    );
                }
            };
            let accepted = |way: &str| panic!("{} {nth}: accepted by {way}", attack.name);
            if attack.sight != Sight::BesideContent {
                match self.import(&path, attack.sight) {
                    Ok(()) => accepted("import"),
                    Err(error) => {
                        assert!(error.is_verification(), "{}: {error}", attack.name);
                        said("import", error.to_string());
                    }
                }
                self.unchanged(&before, attack);
            }
            if !matches!(attack.sight, Sight::InStore | Sight::InManifests) {
                match self.verify(&path, attack.sight) {
                    Ok(()) => accepted("verify"),
                    Err(error) => {
                        assert!(error.is_verification(), "{}: {error}", attack.name);
                        said("verify", error.to_string());
                    }
                }
            }
            if !matches!(attack.sight, Sight::InStore | Sight::InTime | Sight::BesideContent) {
                match self.serve(&path, attack.sight) {
                    Ok(()) => accepted("serve"),
                    Err(Served::Content(_) | Served::Absent)
                        if matches!(attack.sight, Sight::InContent | Sight::InManifests) => {}
                    Err(error) => said("serve", error.to_string()),
                }
            }
        }
        files.len()
    }

    /// An import that is refused before it copies leaves every file as it was. One that finds damage on the way may have
    /// brought content that is good, which nothing refers to.
    #[track_caller]
    fn unchanged(&self, before: &BTreeMap<PathBuf, Digest>, attack: &Attack) {
        let mut after = self.fingerprint();
        if matches!(attack.sight, Sight::InContent | Sight::InManifests) {
            let blobs = self.store.path().join("blobs");
            after.retain(|path, digest| {
                let copied = path.starts_with(&blobs) && !before.contains_key(path);
                let name = path.file_name().unwrap().to_str().unwrap();
                assert!(!copied || name == digest.hex() || name.len() == 128, "{}", path.display());
                !copied
            });
        }
        assert!(after == *before, "{} changed the store", attack.name);
    }

    /// A writer, to see that none is left behind.
    pub(crate) fn writer(&self) -> dray::store::Writer {
        self.store.writer("a test", Duration::ZERO).unwrap()
    }
}

/// Panics if what leaves is not what was asked for.
fn left(digest: &Digest, blob: Option<Blob>) -> Result<(), Served> {
    let Some(blob) = blob else { return Err(Served::Absent) };
    let mut bytes = vec![0; usize::try_from(blob.size()).unwrap()];
    assert_eq!(blob.read_at(&mut bytes, 0).unwrap(), bytes.len());
    assert!(digest.matches(&bytes), "{digest} left with another content");
    Ok(())
}

/// Why something is not served.
#[derive(Debug)]
pub(crate) enum Served {
    Bundle(BundleError),
    Content(ContentError),
    Serve(ServeError),
    Absent,
}

impl std::fmt::Display for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bundle(error) => error.fmt(f),
            Self::Content(error) => error.fmt(f),
            Self::Serve(error) => error.fmt(f),
            Self::Absent => f.write_str("it is not there"),
        }
    }
}

impl From<BundleError> for Served {
    fn from(error: BundleError) -> Self {
        Self::Bundle(error)
    }
}

impl From<ContentError> for Served {
    fn from(error: ContentError) -> Self {
        Self::Content(error)
    }
}

impl From<ServeError> for Served {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Content(error) => Self::Content(error),
            other @ ServeError::LeftOut { .. } => Self::Serve(other),
        }
    }
}
