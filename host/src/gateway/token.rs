//! The bearer token: who can read the data directory may use the gateway.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Name of the file in the data directory.
pub const TOKEN_FILE: &str = "token";
/// Random bytes in a token.
const TOKEN_BYTES: usize = 32;
/// Length in bytes that a token file may have.
const FILE_BYTES_MAX: u64 = 1024;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("token file {}: {source}; check the directory's permissions", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("token file {} can be read by others (mode {mode:o}): run `chmod 600` on it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds no token.
    #[error("token file {} holds no token: remove it and start `quorate up` again", path.display())]
    Form {
        /// The file.
        path: PathBuf,
    },
    /// The system has no randomness.
    #[error("system has no randomness for a token: {0}")]
    Random(getrandom::Error),
}

/// A secret that prints as nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token that is known already.
    pub fn from_text(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_plain = text.len() >= 16 && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_plain.then(|| Self(text.to_owned()))
    }

    /// The token in `path`, which must be the owner's alone.
    ///
    /// # Errors
    /// When there is none, others may read it, or it is no token.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let failed = |source| TokenError::File { path: path.to_owned(), source };
        let about = fs::metadata(path).map_err(failed)?;
        let mode = about.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TokenError::Open { path: path.to_owned(), mode });
        }
        if about.len() > FILE_BYTES_MAX {
            return Err(TokenError::Form { path: path.to_owned() });
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        Self::from_text(&text).ok_or_else(|| TokenError::Form { path: path.to_owned() })
    }

    /// The token in `path`; a new one when there is none.
    ///
    /// # Errors
    /// As [`Token::load`], or when the file cannot be written.
    pub fn load_or_create(path: &Path) -> Result<Self, TokenError> {
        let failed = |source| TokenError::File { path: path.to_owned(), source };
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Self::load(path),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(TokenError::Random)?;
        let text = data_encoding::HEXLOWER.encode(&bytes);
        writeln!(file, "{text}").and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(Self(text))
    }

    /// Whether `given` is the token. Takes as long whatever is wrong with it: hashes are compared, in constant time.
    pub fn is(&self, given: &str) -> bool {
        blake3::hash(given.as_bytes()) == blake3::hash(self.0.as_bytes())
    }

    /// The value of the `Authorization` header.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(TOKEN_FILE);
        let made = Token::load_or_create(&path).unwrap();
        assert_eq!(Token::load_or_create(&path).unwrap(), made);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refusal = Token::load(&path).unwrap_err().to_string();
        assert!(refusal.contains("chmod 600"), "{refusal}");
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = Token::from_text("0123456789abcdef").unwrap();
        assert!(token.is("0123456789abcdef"));
        for wrong in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeF"] {
            assert!(!token.is(wrong), "{wrong}");
        }
        assert!(!format!("{token:?}").contains("0123"));
        assert_eq!(Token::from_text("short"), None);
    }
}
