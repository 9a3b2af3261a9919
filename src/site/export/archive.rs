//! The archive itself: an uncompressed tar, laid out before it is written, with the same bytes every time.

use std::collections::BTreeSet;
use std::io::Write;

use bytes::Bytes;
use serde_json::{Value, json};

use super::image::Exported;
use super::{ExportError, ExportedImage};
use crate::bundle::tar;
use crate::oci::{Algorithm, Descriptor, Digest, Hasher, Image, Reference, RepositoryName, media_type};
use crate::registry::{Composition, Piece};
use crate::store::{Content, ContentError};

/// Bytes read and written at once.
const CHUNK: usize = 1 << 20;
/// What contents are filled up with to whole blocks, and what ends the archive.
static ZEROS: [u8; 1024] = [0; 1024];

/// An archive that can be written.
#[derive(Debug)]
pub struct Archive {
    mtime: u64,
    members: Vec<Member>,
    /// The digests that have a member already.
    held: BTreeSet<Digest>,
    /// Entries of the OCI `index.json`.
    index: Vec<Value>,
    /// Entries of Docker's `manifest.json`.
    docker: Vec<Value>,
    images: Vec<ExportedImage>,
}

#[derive(Debug)]
struct Member {
    path: String,
    size: u64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Bytes(Bytes),
    Blob(RepositoryName, Digest),
}

impl Archive {
    pub(super) fn new(mtime: u64) -> Self {
        Self {
            mtime,
            members: Vec::new(),
            held: BTreeSet::new(),
            index: Vec::new(),
            docker: Vec::new(),
            images: Vec::new(),
        }
    }

    /// The images in it, in the order of the release's list.
    pub fn images(&self) -> &[ExportedImage] {
        &self.images
    }

    /// The size of the file in bytes.
    pub fn size(&self) -> u64 {
        let member =
            |member: &Member| tar::header_len(&member.path) + member.size.next_multiple_of(tar::BLOCK);
        self.members.iter().map(member).sum::<u64>() + tar::END
    }

    pub(super) fn add(&mut self, reference: &Reference, image: Exported) {
        for (descriptor, bytes) in image.documents {
            self.hold(descriptor, |_| Source::Bytes(bytes));
        }
        for blob in image.blobs {
            self.hold(blob, |digest| Source::Blob(reference.name().clone(), digest));
        }
        for name in names(reference) {
            self.index.push(entry(&image.root, &name));
        }
        self.docker.push(docker_entry(reference, &image.runs));
        self.images.push(ExportedImage {
            reference: reference.clone(),
            digest: image.root.digest,
            reindexed: image.reindexed,
        });
    }

    fn hold(&mut self, descriptor: Descriptor, source: impl FnOnce(Digest) -> Source) {
        if self.held.insert(descriptor.digest.clone()) {
            self.members.push(Member {
                path: blob_path(&descriptor.digest),
                size: descriptor.size,
                source: source(descriptor.digest),
            });
        }
    }

    /// Adds the documents that name the contents.
    pub(super) fn finish(&mut self) {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_INDEX,
            "manifests": std::mem::take(&mut self.index),
        });
        let docker = Value::Array(std::mem::take(&mut self.docker));
        for (path, document) in [
            ("index.json", index),
            ("manifest.json", docker),
            ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
        ] {
            let bytes = Bytes::from(document.to_string());
            self.members.push(Member {
                path: path.to_owned(),
                size: bytes.len() as u64,
                source: Source::Bytes(bytes),
            });
        }
    }

    /// The archive as a file that can be put together while it is sent. It is the same for the same store and request.
    pub fn composition(&self) -> Composition {
        let mut pieces = Vec::new();
        for member in &self.members {
            pieces.push(Piece::Bytes(tar::header(&member.path, member.size, self.mtime).into()));
            pieces.push(match &member.source {
                Source::Bytes(bytes) => Piece::Bytes(bytes.clone()),
                Source::Blob(repository, digest) => {
                    Piece::Blob { repository: repository.clone(), digest: digest.clone(), size: member.size }
                }
            });
            pieces.push(zeros(member.size.next_multiple_of(tar::BLOCK) - member.size));
        }
        pieces.push(zeros(tar::END));
        pieces.retain(|piece| piece.size() > 0);
        Composition { identity: identity(&pieces), pieces }
    }

    /// Writes the archive with the contents that `content` has, and says after each piece how many bytes it was.
    pub fn write(
        &self,
        content: &dyn Content,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ExportError> {
        for piece in self.composition().pieces {
            match piece {
                Piece::Bytes(bytes) => {
                    out.write_all(&bytes)?;
                    progress(bytes.len() as u64);
                }
                Piece::Blob { repository, digest, size } => {
                    copy_blob(content, &repository, (&digest, size), out, progress)?;
                }
            }
        }
        out.flush()?;
        Ok(())
    }

    /// The digest of the archive by `algorithm`, computed by reading all that is in it.
    pub fn digest(
        &self,
        content: &dyn Content,
        algorithm: Algorithm,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Digest, ExportError> {
        let mut hasher = Hasher::new(algorithm);
        self.write(content, &mut hasher, progress)?;
        Ok(hasher.finish())
    }
}

fn zeros(count: u64) -> Piece {
    // There are never more than end an archive.
    let count = usize::try_from(count).map_or(ZEROS.len(), |count| count.min(ZEROS.len()));
    Piece::Bytes(Bytes::from_static(&ZEROS[..count]))
}

/// Stands for the bytes of `pieces`: the digest of a list of their digests.
fn identity(pieces: &[Piece]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for piece in pieces {
        let line = match piece {
            Piece::Bytes(bytes) => format!("{} {}\n", Digest::sha256(bytes), bytes.len()),
            Piece::Blob { digest, size, .. } => format!("{digest} {size}\n"),
        };
        hasher.update(line.as_bytes());
    }
    hasher.finish()
}

/// Copies a blob, which the store has verified before it gives it.
fn copy_blob(
    content: &dyn Content,
    name: &RepositoryName,
    (digest, size): (&Digest, u64),
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> Result<(), ExportError> {
    let blob = content.blob(name, digest)?.filter(|blob| blob.size() == size);
    // Gone, or another size than its manifest says.
    let blob = blob.ok_or_else(|| ContentError::Damaged(digest.clone()))?;
    let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
    let mut done = 0;
    while done < size {
        let read = blob.read_at(&mut buffer, done)?;
        out.write_all(&buffer[..read])?;
        done += read as u64;
        progress(read as u64);
    }
    Ok(())
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// The names that the image gets: what the container runtime looks for when it is asked for the reference.
fn names(reference: &Reference) -> Vec<String> {
    let name = reference.name().as_str();
    let tag = reference.tag().map(|tag| format!("{name}:{}", tag.as_str()));
    let digest = reference.digest().map(|digest| format!("{name}@{digest}"));
    tag.into_iter().chain(digest).collect()
}

/// Both annotations hold the whole name: containerd takes the first, and without it the second as it is.
fn entry(root: &Descriptor, name: &str) -> Value {
    json!({
        "mediaType": root.media_type,
        "digest": root.digest,
        "size": root.size,
        "annotations": {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name,
        },
    })
}

/// The image that runs, as `docker save` describes it. The tag has its host: Docker and RKE2 complete names to the same,
/// but podman would put an image without a host under `localhost`.
fn docker_entry(reference: &Reference, image: &Image) -> Value {
    let tags: Vec<String> =
        reference.tag().and_then(|_| names(reference).into_iter().next()).into_iter().collect();
    json!({
        "Config": blob_path(&image.config.digest),
        "RepoTags": tags,
        "Layers": image.layers.iter().map(|layer| blob_path(&layer.digest)).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_runtimes_ask_for() {
        let digest = Digest::sha256(b"");
        for (reference, name) in [
            ("rancher/mirrored-pause:3.6", "docker.io/rancher/mirrored-pause:3.6"),
            ("busybox:1", "docker.io/library/busybox:1"),
            ("quay.io/k0sproject/pause:3", "quay.io/k0sproject/pause:3"),
        ] {
            assert_eq!(names(&reference.parse().unwrap()), [name]);
        }
        let pinned: Reference = format!("a.io/x:1@{digest}").parse().unwrap();
        assert_eq!(names(&pinned), ["a.io/x:1".to_owned(), format!("a.io/x@{digest}")]);
    }

    #[test]
    fn the_size_is_known_before() {
        let mut archive = Archive::new(0);
        let bytes = Bytes::from_static(b"{}");
        archive.hold(Descriptor::of("a", &bytes), |_| Source::Bytes(bytes.clone()));
        archive.hold(Descriptor::of("b", &bytes), |_| Source::Bytes(bytes.clone()));
        archive.finish();
        let nothing = tempfile::tempdir().unwrap();
        let store = crate::store::Store::create(nothing.path()).unwrap();
        let mut written = Vec::new();
        archive.write(&store, &mut written, &mut |_| {}).unwrap();
        assert_eq!(written.len() as u64, archive.size());
        let composition = archive.composition();
        assert_eq!(composition.pieces.iter().map(Piece::size).sum::<u64>(), archive.size());
        assert_eq!(composition.identity, archive.composition().identity);
        let sum = archive.digest(&store, Algorithm::Sha256, &mut |_| {}).unwrap();
        assert!(sum.matches(&written));
        let mut reader = ::tar::Archive::new(&written[..]);
        assert_eq!(reader.entries().unwrap().count(), 4);
    }
}
