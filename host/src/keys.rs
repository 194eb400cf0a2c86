//! Secret keys in files: a node's, and an operator's.
//!
//! A key file holds 64 hexadecimal digits and a line end, and is readable by its owner alone. It appears complete or not
//! at all, and of two processes that create it at once both end up with the same key. What is in it is never printed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use registry::sign::SecretKey;

/// Length in bytes of a key file: more is no key.
const KEY_FILE_BYTES_MAX: u64 = 128;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Others may read the file.
    #[error("key file {} can be read by others (mode {mode:03o}): run `chmod 600 {}`, or make a new key if they may have", path.display(), path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("key file {} does not hold a key of 64 hexadecimal digits: restore it from a copy, or remove it for a new identity", path.display())]
    Form {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("key file {}: {stage} failed: {source}", path.display())]
    File {
        /// What was tried.
        stage: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system has no randomness for a new key.
    #[error("no new key: the system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

/// The key in the file at `path`; a new one, if there is no file.
///
/// # Errors
/// When the file is readable by others, holds no key, or cannot be read or written.
pub fn load_or_create(path: &Path) -> Result<SecretKey, KeyError> {
    match load(path) {
        Err(KeyError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            create(path)?;
            load(path)
        }
        loaded => loaded,
    }
}

/// The key in the file at `path`.
///
/// # Errors
/// When there is no such file, it is readable by others, or holds no key.
pub fn load(path: &Path) -> Result<SecretKey, KeyError> {
    let failed = |source| KeyError::File { stage: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    check_mode(path, &file.metadata().map_err(failed)?)?;
    let mut text = String::new();
    let form = || KeyError::Form { path: path.to_owned() };
    match file.take(KEY_FILE_BYTES_MAX + 1).read_to_string(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(form()),
        Err(error) => return Err(failed(error)),
    }
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).map_err(|_| form())?;
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| form())?;
    Ok(SecretKey::from_bytes(&bytes))
}

#[cfg(unix)]
fn check_mode(path: &Path, about: &fs::Metadata) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(KeyError::Mode { path: path.to_owned(), mode }) }
}

#[cfg(not(unix))]
fn check_mode(_path: &Path, _about: &fs::Metadata) -> Result<(), KeyError> {
    Ok(())
}

/// Writes a new key beside `path` and links it there, unless somebody else was first.
fn create(path: &Path) -> Result<(), KeyError> {
    let failed = |stage| move |source| KeyError::File { stage, path: path.to_owned(), source };
    let key = SecretKey::generate().map_err(KeyError::Random)?;
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir).map_err(failed("making its directory"))?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // The public half is unique, and no secret.
    name.push(format!(".{}.new", data_encoding::HEXLOWER.encode(&key.public()[..8])));
    let new = path.with_file_name(name);
    let written = write_new(&new, &key).map_err(failed("write"));
    let linked = written.and_then(|()| match fs::hard_link(&new, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked.map_err(failed("write")),
    });
    // A leftover is readable by its owner alone and is no key in use.
    let _ = fs::remove_file(&new);
    linked
}

fn write_new(path: &Path, key: &SecretKey) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    writeln!(file, "{}", data_encoding::HEXLOWER.encode(&key.to_bytes()))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_its_owners_alone_and_is_the_same_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/node.key");
        let key = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap().to_bytes(), key.to_bytes());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn processes_that_start_at_once_have_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| load_or_create(&path).unwrap().public())).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused_with_what_to_do() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        load_or_create(&path).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refusal = load_or_create(&path).unwrap_err().to_string();
            assert!(refusal.contains("chmod 600") && !refusal.contains('\n'), "{refusal}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        load_or_create(&path).unwrap();
        for text in ["", "abc", &"g".repeat(64), &"a".repeat(66), &"a".repeat(1000)] {
            fs::write(&path, text).unwrap();
            assert!(matches!(load_or_create(&path), Err(KeyError::Form { .. })), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
