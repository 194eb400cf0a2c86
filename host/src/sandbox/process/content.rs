//! Content that processes share: a memory file that nobody can change any more, read by mapping it.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use bytes::Bytes;
use memmap2::MmapOptions;
use rustix::fs::fstat;

use crate::sandbox::{compile::Artifact, memory_file};

/// Why content does not arrive.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContentError {
    #[error("memory file is not sealed: it could change while it is read")]
    NotSealed,
    #[error("memory file: {0}")]
    Io(#[from] io::Error),
}

/// A sealed memory file. Its pages are shared by all who map it, and go when the last one lets go.
pub(super) struct Content {
    file: File,
    bytes: u64,
}

impl Content {
    /// A file of these pieces, one after the other.
    pub(super) fn seal(pieces: &[&[u8]]) -> io::Result<Self> {
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        Ok(Self { file: memory_file::constant("content", pieces)?, bytes })
    }

    /// The code of a module.
    pub(super) fn code(artifact: &Artifact) -> io::Result<Self> {
        Ok(Self { file: artifact.copy()?, bytes: artifact.code_bytes() })
    }

    /// Its length in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The bytes of a file that came from the other side.
    #[allow(unsafe_code, reason = "a mapping has no safe form, since files change; this one cannot")]
    pub(super) fn map(file: OwnedFd, bytes: u64) -> Result<Bytes, ContentError> {
        if !memory_file::is_constant(&file)? {
            return Err(ContentError::NotSealed);
        }
        // By its own call: what the standard library asks with could name other files too, and a jail has none of it.
        if u64::try_from(fstat(&file).map_err(io::Error::from)?.st_size).ok() != Some(bytes) {
            return Err(ContentError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        if bytes == 0 {
            return Ok(Bytes::new());
        }
        // SAFETY: the seals were just seen, and cannot be taken off: nobody writes to the file nor cuts it for as long as it
        // exists. The host, which made it, wrote to it before and never mapped it to write. So the bytes are constant.
        let map = unsafe { MmapOptions::new().len(bytes as usize).map_copy_read_only(&file) }?;
        Ok(Bytes::from_owner(map))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_may_change_is_not_mapped() {
        let open = memory_file::empty("open").unwrap();
        assert!(matches!(Content::map(open.into(), 0), Err(ContentError::NotSealed)));
    }

    #[test]
    fn sealed_content_cannot_be_changed() {
        let content = Content::seal(&[b"constant"]).unwrap();
        let mut again = File::from(content.file().try_clone_to_owned().unwrap());
        assert!(again.write_all(b"variable").is_err() && again.set_len(1).is_err());
        assert_eq!(Content::map(content.file().try_clone_to_owned().unwrap(), 8).unwrap(), &b"constant"[..]);
    }
}
