//! A directory that files of a task are written to, and that a guest's path cannot leave.

use std::{
    fs::File,
    io,
    path::{Component, Path, PathBuf},
};

use cap_std::{
    ambient_authority,
    fs::{Dir, OpenOptions},
};

use super::{CliError, output};

/// The directory. Nothing is followed out of it, and nothing that is there is replaced.
pub(super) struct Folder {
    dir: Dir,
    path: PathBuf,
}

impl Folder {
    /// Opens a directory; makes it when there is none.
    pub(super) fn open(path: &Path) -> Result<Self, CliError> {
        let failed = |source| CliError::File { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
        let dir = Dir::open_ambient_dir(path, ambient_authority()).map_err(failed)?;
        Ok(Self { dir, path: path.to_owned() })
    }

    /// Makes a file, and the directories on the way to it; gives its name for people as well.
    pub(super) fn create(&self, path: &Path) -> Result<(File, PathBuf), CliError> {
        let shown = self.path.join(output::shown(&path.to_string_lossy()));
        match create(&self.dir, path) {
            Ok(file) => Ok((file, shown)),
            Err(source) => Err(CliError::File { path: shown, source }),
        }
    }
}

fn create(root: &Dir, path: &Path) -> io::Result<File> {
    let is_plain = path.components().all(|component| matches!(component, Component::Normal(_)));
    if !is_plain {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the task wrote a path that leaves its directory"));
    }
    if let Some(parent) = path.parent() {
        root.create_dir_all(parent)?;
    }
    Ok(root.open_with(path, OpenOptions::new().write(true).create_new(true))?.into_std())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_path_cannot_leave_the_directory() {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::os::unix::fs::symlink("..", inner.join("up")).unwrap();
        let folder = Folder::open(&inner).unwrap();
        for path in ["../a", "/tmp/quorate-escape", "x/../../a", "up/a", "."] {
            assert!(folder.create(Path::new(path)).is_err(), "{path} was written");
        }
        folder.create(Path::new("x/y/z")).unwrap();
        assert!(folder.create(Path::new("x/y/z")).is_err(), "a file was replaced");
        assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
    }
}
