//! Uploads: blobs that arrive in pieces, over several requests and perhaps several runs of the program.
//!
//! An upload is a directory `uploads/<id>/` with what has arrived so far (`data`) and whom it is for (`upload.json`). The
//! length of `data` is the truth about how much has arrived; after a restart it is hashed again up to there.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::oci::{Algorithm, Digest, Hasher, RepositoryName};

use super::durable::{Dirty, adopt};
use super::id::UploadId;
use super::record::{MAX_RECORD, bounded, file_names, json};
use super::{Store, StoreError, Writer};

/// How much is read at once when an upload is hashed again.
const CHUNK: usize = 256 * 1024;

/// Whom an upload is for.
#[derive(Serialize, Deserialize)]
struct About {
    repository: RepositoryName,
}

/// An upload in progress.
#[derive(Debug)]
pub struct Upload {
    store: Store,
    directory: PathBuf,
    repository: RepositoryName,
    data: File,
    hasher: Hasher,
    algorithm: Algorithm,
    size: u64,
}

impl Store {
    /// Starts an upload into `repository`, which will probably have a digest of `algorithm`.
    pub fn begin_upload(
        &self,
        repository: &RepositoryName,
        algorithm: Algorithm,
    ) -> Result<(UploadId, Upload), StoreError> {
        let id = UploadId::random()?;
        let directory = self.layout().upload(&id);
        fs::create_dir_all(self.layout().uploads())?;
        fs::create_dir(&directory)?;
        let about = serde_json::to_vec(&About { repository: repository.clone() }).map_err(io::Error::from)?;
        fs::write(about_file(&directory), about)?;
        let data = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(data_file(&directory))?
            .into_file();
        for made in
            [self.layout().uploads(), directory.clone(), about_file(&directory), data_file(&directory)]
        {
            adopt(&made);
        }
        let upload = Upload {
            store: self.clone(),
            directory,
            repository: repository.clone(),
            data,
            hasher: Hasher::new(algorithm),
            algorithm,
            size: 0,
        };
        Ok((id, upload))
    }

    /// Continues an upload that an earlier run of the program began; none when there is no such upload.
    pub fn resume_upload(&self, id: &UploadId) -> Result<Option<Upload>, StoreError> {
        let directory = self.layout().upload(id);
        let file = about_file(&directory);
        let Some(about) = bounded(&file, MAX_RECORD)? else { return Ok(None) };
        let About { repository } = json(&file, &about)?;
        let opened = fs::OpenOptions::new().read(true).write(true).open(data_file(&directory));
        let mut data = match opened {
            Ok(data) => data.into_file(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (hasher, size) = hash(&mut data, Algorithm::Sha256)?;
        let store = self.clone();
        Ok(Some(Upload { store, directory, repository, data, hasher, algorithm: Algorithm::Sha256, size }))
    }

    /// The uploads to which nothing was added for `age`, as the clock and the files say.
    pub fn idle_uploads(&self, age: Duration) -> Result<Vec<UploadId>, StoreError> {
        let mut found = Vec::new();
        for file in file_names(&self.layout().uploads())?.into_iter().flatten() {
            let Ok(id) = file?.parse::<UploadId>() else { continue };
            let directory = self.layout().upload(&id);
            // Without data it is one that begins or ends just now, or did when the program was stopped.
            let metadata = fs::metadata(data_file(&directory)).or_else(|_| fs::metadata(&directory));
            let changed = metadata.and_then(|metadata| metadata.modified());
            let idle = changed.map(|changed| SystemTime::now().duration_since(changed).unwrap_or_default());
            if idle.is_ok_and(|idle| idle >= age) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Removes an upload and what has arrived of it.
    pub fn remove_upload(&self, id: &UploadId) -> Result<(), StoreError> {
        Ok(remove_directory(&self.layout().upload(id))?)
    }
}

impl Upload {
    /// The repository that it is for.
    pub fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// How many bytes have arrived.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds the next bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if let Err(error) = self.data.write_all(bytes) {
            // What was written of them would otherwise stand between what counts and what comes next.
            self.data.set_len(self.size)?;
            self.data.seek(SeekFrom::Start(self.size))?;
            return Err(error.into());
        }
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Makes what has arrived the blob `digest` of its repository, if it is that, and durable.
    pub fn commit(self, digest: &Digest, writer: &Writer) -> Result<(), StoreError> {
        let directory = self.directory.clone();
        let committed = self.place(digest, writer);
        if committed.as_ref().is_err_and(StoreError::is_storage_full) {
            remove_directory(&directory)?;
        }
        committed
    }

    fn place(mut self, digest: &Digest, writer: &Writer) -> Result<(), StoreError> {
        if self.algorithm != digest.algorithm() {
            self.hasher = hash(&mut self.data, digest.algorithm())?.0;
        }
        let actual = self.hasher.clone().finish();
        if actual != *digest {
            self.cancel()?;
            return Err(StoreError::WrongDigest { expected: digest.clone(), actual });
        }
        self.data.sync_all()?;
        let path = self.store.layout().blob(digest);
        let mut dirty = Dirty::default();
        dirty.create_parent(&path)?;
        fs::rename(data_file(&self.directory), &path)?;
        writer.note_dirty(dirty);
        self.store.0.verified.note_written(digest, &self.data)?;
        writer.add_blob(&self.repository, digest)?;
        Ok(remove_directory(&self.directory)?)
    }

    /// Forgets the upload and what has arrived.
    pub fn cancel(self) -> Result<(), StoreError> {
        Ok(remove_directory(&self.directory)?)
    }
}

/// Removes an upload's directory; that it is gone already is as good.
fn remove_directory(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn about_file(directory: &Path) -> PathBuf {
    directory.join("upload.json")
}

fn data_file(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// Hashes a file from its beginning, and leaves it positioned at its end.
fn hash(file: &mut File, algorithm: Algorithm) -> io::Result<(Hasher, u64)> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; CHUNK];
    let mut size = 0;
    file.seek(SeekFrom::Start(0))?;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hasher, size));
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
    }
}
