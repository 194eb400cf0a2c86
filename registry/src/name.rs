//! `publisher/name@version` -> manifest hash: signed by the publisher's key, immutable, yankable, never reused.
//!
//! A publisher's word (`alice`) belongs to the first key that publishes under it; [`Index`] is that rule as a value. A
//! yanked version still resolves for jobs that run and is refused for new ones.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    id::{ManifestHash, PublisherId},
    sign::{SignatureError, Signed, Statement},
};

/// Length that a publisher's or a module's word may have.
pub const WORD_CHARS_MAX: usize = 64;
/// Length that the reason of a yank may have.
pub const REASON_BYTES_MAX: usize = 512;

/// Why a name or a statement about one is refused.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// Not of the form.
    #[error(
        "`{0}` is not a name: expected publisher/name@version, words of a-z, 0-9 and -, version a number from 1, e.g. alice/digits@1"
    )]
    Form(String),
    /// The signature does not hold.
    #[error("name statement is not believed: {0}")]
    Signature(#[from] SignatureError),
    /// The publisher's word is another key's.
    #[error("publisher `{publisher}` belongs to another key: publish under a word of your own")]
    Publisher {
        /// The word.
        publisher: String,
    },
    /// The version is taken.
    #[error("{0} is published already and versions are immutable: publish the next version")]
    Taken(Name),
    /// Nothing has that name.
    #[error("{0} is not published here: push it first, or check the spelling")]
    Unknown(Name),
    /// Yanked.
    #[error("{name} was yanked by its publisher ({reason}): use another version")]
    Yanked {
        /// The name.
        name: Name,
        /// The publisher's reason.
        reason: String,
    },
    /// The reason of a yank is too long.
    #[error("reason of {bytes} bytes is over the bound of {REASON_BYTES_MAX} bytes: shorten it")]
    Reason {
        /// Length received.
        bytes: usize,
    },
}

/// One version of one publisher's module or model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The publisher's word.
    pub publisher: String,
    /// The module's or model's word.
    pub name: String,
    /// From 1.
    pub version: u32,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.publisher, self.name, self.version)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refused = || NameError::Form(text.chars().take(2 * WORD_CHARS_MAX).collect());
        let (publisher, rest) = text.split_once('/').ok_or_else(refused)?;
        let (name, version) = rest.split_once('@').ok_or_else(refused)?;
        let canonical = version.bytes().all(|b| b.is_ascii_digit()) && !version.starts_with('0');
        let version = version.parse().ok().filter(|_| canonical).ok_or_else(refused)?;
        if !is_word(publisher) || !is_word(name) {
            return Err(refused());
        }
        Ok(Self { publisher: publisher.to_owned(), name: name.to_owned(), version })
    }
}

fn is_word(text: &str) -> bool {
    (1..=WORD_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What a publisher says of one name. Signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum NameStatement {
    /// The name stands for this manifest, for good.
    Publish {
        /// The name.
        name: Name,
        /// Hash of its manifest.
        manifest: ManifestHash,
    },
    /// The name shall not be used by new jobs.
    Yank {
        /// The name.
        name: Name,
        /// Why, for those who used it.
        reason: String,
    },
}

impl Statement for NameStatement {
    const DOMAIN: &'static str = "quorate/name/1";
    const BYTES_MAX: usize = 2048;
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameEntry {
    /// Hash of the manifest.
    pub manifest: ManifestHash,
    /// The publisher's reason, when yanked.
    pub yanked: Option<String>,
}

/// All names of a grid, and whose each publisher's word is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    owners: BTreeMap<String, PublisherId>,
    entries: BTreeMap<Name, NameEntry>,
}

impl Index {
    /// Applies a signed statement. Saying the same thing again is no error, so that a retry is safe.
    ///
    /// # Errors
    /// When the signature, the owner or the immutability says no; nothing has changed then.
    pub fn apply(&mut self, statement: &Signed<NameStatement>) -> Result<Name, NameError> {
        let (statement, signer) = statement.open()?;
        let signer = PublisherId(signer);
        let name = match &statement {
            NameStatement::Publish { name, .. } | NameStatement::Yank { name, .. } => name.clone(),
        };
        if self.owners.get(&name.publisher).is_some_and(|owner| *owner != signer) {
            return Err(NameError::Publisher { publisher: name.publisher });
        }
        match statement {
            NameStatement::Publish { manifest, .. } => match self.entries.get(&name) {
                Some(entry) if entry.manifest == manifest => {}
                Some(_) => return Err(NameError::Taken(name)),
                None => {
                    self.owners.insert(name.publisher.clone(), signer);
                    self.entries.insert(name.clone(), NameEntry { manifest, yanked: None });
                }
            },
            NameStatement::Yank { reason, .. } => {
                if reason.len() > REASON_BYTES_MAX {
                    return Err(NameError::Reason { bytes: reason.len() });
                }
                let entry = self.entries.get_mut(&name).ok_or_else(|| NameError::Unknown(name.clone()))?;
                entry.yanked.get_or_insert(reason);
            }
        }
        Ok(name)
    }

    /// The manifest that a new job gets for this name.
    ///
    /// # Errors
    /// When the name is unknown or yanked.
    pub fn resolve(&self, name: &Name) -> Result<ManifestHash, NameError> {
        let entry = self.entries.get(name).ok_or_else(|| NameError::Unknown(name.clone()))?;
        match &entry.yanked {
            None => Ok(entry.manifest),
            Some(reason) => Err(NameError::Yanked { name: name.clone(), reason: reason.clone() }),
        }
    }

    /// Every name with what it stands for, in order.
    pub fn entries(&self) -> impl Iterator<Item = (&Name, &NameEntry)> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::SecretKey;

    fn publish(name: &str, manifest: &[u8], key: &SecretKey) -> Signed<NameStatement> {
        Signed::seal(&NameStatement::Publish { name: name.parse().unwrap(), manifest: ManifestHash::of(manifest) }, key)
    }

    fn yank(name: &str, key: &SecretKey) -> Signed<NameStatement> {
        Signed::seal(&NameStatement::Yank { name: name.parse().unwrap(), reason: "wrong labels".into() }, key)
    }

    #[test]
    fn a_name_is_immutable_and_its_publisher_is_the_first_key() {
        let (alice, mallory) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        let mut index = Index::default();
        index.apply(&publish("alice/digits@1", b"one", &alice)).unwrap();
        index.apply(&publish("alice/digits@1", b"one", &alice)).expect("saying it again is no error");
        assert!(matches!(index.apply(&publish("alice/digits@1", b"two", &alice)), Err(NameError::Taken(_))));
        assert!(matches!(index.apply(&publish("alice/digits@2", b"two", &mallory)), Err(NameError::Publisher { .. })));
        assert!(matches!(index.apply(&yank("alice/digits@1", &mallory)), Err(NameError::Publisher { .. })));
        assert_eq!(index.resolve(&"alice/digits@1".parse().unwrap()).unwrap(), ManifestHash::of(b"one"));
    }

    #[test]
    fn a_yanked_version_is_refused_with_its_reason_and_never_reused() {
        let alice = SecretKey::from_bytes(&[1; 32]);
        let mut index = Index::default();
        assert!(matches!(index.apply(&yank("alice/digits@1", &alice)), Err(NameError::Unknown(_))));
        index.apply(&publish("alice/digits@1", b"one", &alice)).unwrap();
        index.apply(&yank("alice/digits@1", &alice)).unwrap();
        let refusal = index.resolve(&"alice/digits@1".parse().unwrap()).unwrap_err().to_string();
        assert!(refusal.contains("wrong labels"), "{refusal}");
        assert!(matches!(index.apply(&publish("alice/digits@1", b"two", &alice)), Err(NameError::Taken(_))));
    }

    #[test]
    fn words_that_are_no_names_are_refused() {
        for text in [
            "",
            "digits",
            "alice/digits",
            "alice/digits@",
            "alice/digits@0",
            "alice/digits@01",
            "Alice/digits@1",
            "a/b/c@1",
            "alice/di gits@1",
            "-a/b@1",
            "a/b@99999999999",
        ] {
            assert!(text.parse::<Name>().is_err(), "{text} was accepted");
        }
    }
}
