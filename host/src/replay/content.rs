//! Where the bytes of a replay come from: folders of files named by their hashes, and stores of nodes that do not run.
//!
//! A folder is made by `quorate receipt get --content`. A file in it is named by the 64 digits of its hash: of its bytes
//! for a blob, of its canonical bytes under a domain for a job, a task, an output or an engine. Whatever is read is held
//! against its name, so it does not matter who made the folder. A blob that is not what its name says is refused rather
//! than looked for elsewhere: somebody changed it, and its owner should know.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use registry::{
    canon,
    id::{BlobHash, ID_BYTES},
    preimage::{Preimage, PreimageError},
    store::{Store, StoreError, StoreOptions},
};

use super::is_empty;

/// The folder beside the records that `quorate receipt get --content` fills.
pub(crate) const CONTENT_DIR: &str = "content";
/// The store within a node's data directory.
const BLOBS_DIR: &str = "blobs";
/// What only a store has in it.
const STORE_FILE: &str = "blobs.db";

/// Why content cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    /// Nowhere.
    #[error(
        "{what} {hash} is not at hand: `quorate receipt get JOB --out DIR --content` fetches what a replay needs, and \
         --fetch does so now"
    )]
    Missing {
        /// Which kind.
        what: &'static str,
        /// Its name.
        hash: BlobHash,
    },
    /// A file is not what its name says.
    #[error("{}: {what} has hash {found} instead of {expected}: the file was changed; fetch it again", path.display())]
    Hash {
        /// Which kind.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// As named.
        expected: BlobHash,
        /// As computed.
        found: BlobHash,
    },
    /// A file is no such value, or not what its name says.
    #[error("{}: {source}", path.display())]
    Preimage {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PreimageError,
    },
    /// Longer than such content may be.
    #[error("{}: {what} of {bytes} bytes is over the bound of {bytes_max} bytes", path.display())]
    TooLarge {
        /// Which kind.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// As found.
        bytes: u64,
        /// Largest allowed.
        bytes_max: u64,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory holds neither content nor a store.
    #[error("{}: neither a folder of files named by their hashes nor a node's data directory", path.display())]
    Nothing {
        /// The directory.
        path: PathBuf,
    },
    /// A node runs on the store.
    #[error("{}: a node runs on this store; stop it, or ask its coordinator with --fetch", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A store does not open, or a blob in it cannot be read.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl ContentError {
    /// A stable word for programs.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "content_missing",
            Self::Hash { .. } | Self::Preimage { source: PreimageError::Hash { .. }, .. } => "hash",
            Self::Preimage { .. } => "malformed",
            Self::TooLarge { .. } => "too_large",
            Self::File { .. } | Self::Nothing { .. } => "file",
            Self::InUse { .. } => "in_use",
            Self::Store(_) => "store",
        }
    }
}

/// A file of whatever name.
///
/// # Errors
/// When it cannot be read, or is longer than `bytes_max`.
pub(crate) fn read_file(what: &'static str, path: &Path, bytes_max: u64) -> Result<Vec<u8>, ContentError> {
    let failed = |source| ContentError::File { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    if bytes > bytes_max {
        return Err(ContentError::TooLarge { what, path: path.to_owned(), bytes, bytes_max });
    }
    let mut content = Vec::new();
    file.take(bytes_max).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

/// A folder of files named by their hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`, which need not exist before something is put there.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The one that goes with a file: the directory [`CONTENT_DIR`] beside it.
    pub(crate) fn beside(file: &Path) -> Self {
        Self::new(file.parent().unwrap_or(Path::new("")).join(CONTENT_DIR))
    }

    /// The file of this name.
    pub(crate) fn path(&self, name: [u8; ID_BYTES]) -> PathBuf {
        self.0.join(BlobHash(name).to_string())
    }

    /// Whether there is a file of this name. What is in it is looked at when it is read.
    pub(crate) fn has(&self, name: [u8; ID_BYTES]) -> bool {
        self.path(name).is_file()
    }

    /// The bytes of a file, not held against its name yet.
    fn read(&self, what: &'static str, name: [u8; ID_BYTES], bytes_max: u64) -> Result<Option<Vec<u8>>, ContentError> {
        match read_file(what, &self.path(name), bytes_max) {
            Ok(content) => Ok(Some(content)),
            Err(ContentError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn blob(&self, what: &'static str, hash: BlobHash, bytes_max: u64) -> Result<Option<Bytes>, ContentError> {
        let Some(bytes) = self.read(what, hash.0, bytes_max)? else { return Ok(None) };
        let found = BlobHash::of(&bytes);
        if found != hash {
            return Err(ContentError::Hash { what, path: self.path(hash.0), expected: hash, found });
        }
        Ok(Some(bytes.into()))
    }

    /// The value with this name, if its file is here.
    ///
    /// # Errors
    /// When the file is not what its name says.
    pub(crate) fn preimage<P: Preimage>(&self, name: [u8; ID_BYTES]) -> Result<Option<P>, ContentError> {
        let Some(bytes) = self.read(P::WHAT, name, P::BYTES_MAX as u64)? else { return Ok(None) };
        let path = self.path(name);
        P::open(name, &bytes).map(Some).map_err(|source| ContentError::Preimage { path, source })
    }

    /// Writes a value under its name.
    pub(crate) fn put<P: Preimage>(&self, value: &P) -> Result<(), ContentError> {
        self.write(value.name(), &canon::encode(value))
    }

    /// Writes a blob under its name.
    pub(crate) fn put_blob(&self, bytes: &[u8]) -> Result<(), ContentError> {
        self.write(BlobHash::of(bytes).0, bytes)
    }

    /// The file appears when it is whole.
    fn write(&self, name: [u8; ID_BYTES], bytes: &[u8]) -> Result<(), ContentError> {
        let part = self.part()?;
        fs::write(&part, bytes).map_err(|source| ContentError::File { path: part.clone(), source })?;
        self.settle(&part, name)
    }

    /// A name for a file that is being written; makes the folder.
    pub(super) fn part(&self) -> Result<PathBuf, ContentError> {
        fs::create_dir_all(&self.0).map_err(|source| ContentError::File { path: self.0.clone(), source })?;
        Ok(self.0.join(format!("{}.part", std::process::id())))
    }

    /// Gives a written file its name.
    pub(super) fn settle(&self, part: &Path, name: [u8; ID_BYTES]) -> Result<(), ContentError> {
        let path = self.path(name);
        fs::rename(part, &path).map_err(|source| ContentError::File { path, source })
    }
}

/// Everything that may be looked into, in order.
#[derive(Debug)]
pub(crate) struct Sources {
    folders: Vec<Folder>,
    stores: Vec<Store>,
}

impl Sources {
    /// Opens directories: folders of content, records with such a folder beside them, and nodes' stores.
    ///
    /// # Errors
    /// When a directory is none of these, or a node runs on it.
    pub(crate) async fn open(dirs: &[PathBuf]) -> Result<Self, ContentError> {
        let mut sources = Self { folders: Vec::new(), stores: Vec::new() };
        for dir in dirs {
            if let Err(error) = sources.add(dir).await {
                sources.close().await;
                return Err(error);
            }
        }
        Ok(sources)
    }

    async fn add(&mut self, dir: &Path) -> Result<(), ContentError> {
        let store = [dir.to_owned(), dir.join(BLOBS_DIR)].into_iter().find(|dir| dir.join(STORE_FILE).is_file());
        match store {
            Some(store) => match Store::open(&store, StoreOptions::default()).await {
                Ok(store) => self.stores.push(store),
                Err(StoreError::InUse { dir }) => return Err(ContentError::InUse { path: dir }),
                Err(error) => return Err(error.into()),
            },
            None if dir.join(CONTENT_DIR).is_dir() => self.folders.push(Folder(dir.join(CONTENT_DIR))),
            None if dir.is_dir() => self.folders.push(Folder(dir.to_owned())),
            None => return Err(ContentError::Nothing { path: dir.to_owned() }),
        }
        Ok(())
    }

    /// One more folder, looked into before the others.
    pub(crate) fn prefer(&mut self, folder: Folder) {
        self.folders.retain(|other| *other != folder);
        self.folders.insert(0, folder);
    }

    /// Frees the stores' directories.
    pub(crate) async fn close(self) {
        for store in self.stores {
            if let Err(error) = store.shutdown().await {
                tracing::warn!(%error, "a store was not closed in order");
            }
        }
    }

    /// The blob, if it is here.
    ///
    /// # Errors
    /// When it is not what its name says, or longer than `bytes_max`.
    pub(crate) async fn find(
        &self,
        what: &'static str,
        hash: BlobHash,
        bytes_max: u64,
    ) -> Result<Option<Bytes>, ContentError> {
        if let Some(none) = is_empty(hash) {
            return Ok(Some(none));
        }
        for folder in &self.folders {
            if let Some(bytes) = folder.blob(what, hash, bytes_max)? {
                return Ok(Some(bytes));
            }
        }
        match self.stores.iter().find(|store| store.has(hash)) {
            Some(store) => Ok(Some(store.read(hash, bytes_max).await?)),
            None => Ok(None),
        }
    }

    /// The blob.
    ///
    /// # Errors
    /// When it is not here, not what its name says, or longer than `bytes_max`.
    pub(crate) async fn blob(&self, what: &'static str, hash: BlobHash, bytes_max: u64) -> Result<Bytes, ContentError> {
        self.find(what, hash, bytes_max).await?.ok_or(ContentError::Missing { what, hash })
    }

    /// The value with this name, if it is here.
    ///
    /// # Errors
    /// When its file is not what its name says.
    pub(crate) fn preimage<P: Preimage>(&self, name: [u8; ID_BYTES]) -> Result<Option<P>, ContentError> {
        for folder in &self.folders {
            if let Some(value) = folder.preimage(name)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use registry::job::{ShardInfo, Stage, TaskKey};

    use super::*;

    #[tokio::test]
    async fn a_blob_comes_from_a_folder_or_a_store_and_never_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (data_dir, folder) = (dir.path().join("node"), Folder::new(dir.path().join("records/content")));
        let store = Store::open(&data_dir.join("blobs"), StoreOptions::default()).await.unwrap();
        let stored = store.publish_bytes(&b"stored"[..]).await.unwrap().hash;
        let dirs = [data_dir, dir.path().join("records")];
        folder.put_blob(b"kept").unwrap();
        let refused = Sources::open(&dirs).await.unwrap_err();
        assert!(refused.word() == "in_use" && refused.to_string().contains("a node runs on this store"), "{refused}");
        store.shutdown().await.unwrap();

        let sources = Sources::open(&dirs).await.unwrap();
        assert_eq!(sources.blob("input", stored, 10).await.unwrap(), &b"stored"[..]);
        let kept = BlobHash::of(b"kept");
        assert_eq!(sources.blob("input", kept, 10).await.unwrap(), &b"kept"[..]);
        assert_eq!(sources.blob("input", kept, 3).await.unwrap_err().word(), "too_large");
        assert_eq!(sources.blob("input", BlobHash::of(b""), 0).await.unwrap(), &b""[..]);
        assert_eq!(sources.blob("input", BlobHash([1; 32]), 10).await.unwrap_err().word(), "content_missing");
        fs::write(folder.path(kept.0), b"kepT").unwrap();
        assert_eq!(sources.blob("input", kept, 10).await.unwrap_err().word(), "hash");
        sources.close().await;
        let nothing = Sources::open(&[dir.path().join("nothing")]).await.unwrap_err();
        assert_eq!(nothing.word(), "file");
    }

    #[test]
    fn a_value_reads_back_under_its_name_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().join("made"));
        let shard = ShardInfo { stage: Stage::Map, index: 0, count: 1 };
        let key = TaskKey { template: BlobHash([1; 32]), shard, input: BlobHash([2; 32]) };
        folder.put(&key).unwrap();
        assert_eq!(folder.preimage::<TaskKey>(key.name()).unwrap(), Some(key));
        assert_eq!(folder.preimage::<TaskKey>([0; 32]).unwrap(), None);
        fs::rename(folder.path(key.name()), folder.path([0; 32])).unwrap();
        assert_eq!(folder.preimage::<TaskKey>([0; 32]).unwrap_err().word(), "hash");
    }
}
