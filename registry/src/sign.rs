//! Domain-separated ed25519 signatures over the exact bytes.
//!
//! What is signed is `DOMAIN || 0x00 || payload`: a signature made for one kind of statement is worth nothing for
//! another. [`Signed`] carries the payload as it was signed, so that nobody has to re-encode anything to check it; the
//! payload itself is canonical and is decoded strictly.
//!
//! A signature may stand for a whole batch of statements: see [`Batch`]. Whoever opens a statement need not care.

mod batch;
#[cfg(test)]
mod tests;

use std::{fmt, marker::PhantomData};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::batch::{BATCH_ITEMS_MAX, Batch, Head, INCLUSION_BYTES_MAX, Inclusion, Tip};
use crate::{
    canon::{self, Bytes, CanonError},
    id::NodeId,
    merkle,
};

/// A kind of statement that can be signed.
pub trait Statement: Serialize + DeserializeOwned {
    /// Kind and version, for example `quorate/receipt/1`.
    const DOMAIN: &'static str;
    /// Length in bytes that the canonical form may have.
    const BYTES_MAX: usize;
}

/// Why a signed statement is not believed.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The signer's key is not a point on the curve.
    #[error("signer's key is not an ed25519 public key")]
    Key,
    /// The signature does not match.
    #[error("signature over {domain} does not match its bytes and key")]
    Mismatch {
        /// Kind of statement.
        domain: &'static str,
    },
    /// A batch of none, or of too many.
    #[error("batch of {count} statements, outside the bounds of 1 to {BATCH_ITEMS_MAX}")]
    Count {
        /// Statements.
        count: usize,
    },
    /// The head of a batch is signed as part of a batch.
    #[error("head of a batch is part of a batch itself; heads are signed for themselves")]
    Nested,
    /// The head of the batch is of another node than its signature.
    #[error("head is of node {head}, signed by {signer}: a head of another host")]
    OtherHead {
        /// The node that the head names.
        head: NodeId,
        /// Who signed.
        signer: NodeId,
    },
    /// The path does not lead from the statement to the root that was signed.
    #[error(
        "path does not lead from leaf {index} of {count} to the root of head {seq}: another leaf's, or changed bytes"
    )]
    Path {
        /// Which leaf.
        index: u32,
        /// Leaves of the batch.
        count: u32,
        /// Number of the head.
        seq: u64,
    },
    /// A batch is not whole, or more than whole.
    #[error("batch of head {seq} has {found} statements, signed were {count}")]
    Items {
        /// Number of the head.
        seq: u64,
        /// As signed.
        count: u32,
        /// As found.
        found: usize,
    },
    /// The statements of a batch are not those that its head stands for.
    #[error("statements of the batch do not lead to the root of head {seq}: one is changed, or stands elsewhere")]
    Root {
        /// Number of the head.
        seq: u64,
    },
    /// The bytes are signed but are not a canonical statement.
    #[error("signed {domain} is malformed: {source}")]
    Payload {
        /// Kind of statement.
        domain: &'static str,
        /// What is wrong with it.
        source: CanonError,
    },
}

/// A secret signing key. It prints as its public half, and its memory is wiped when dropped.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A key from 32 secret bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(bytes))
    }

    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    /// When the operating system has none.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self::from_bytes(&bytes))
    }

    /// The secret bytes, for the key file.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", data_encoding::HEXLOWER.encode(&self.public()[..5]))
    }
}

/// A statement with its signature.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
pub struct Signed<T> {
    payload: Bytes,
    signer: Bytes,
    signature: Bytes,
    /// Absent when the signature is over the payload alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inclusion: Option<Box<Inclusion>>,
    #[serde(skip)]
    kind: PhantomData<T>,
}

impl<T: Statement> Signed<T> {
    /// Signs `statement`.
    pub fn seal(statement: &T, key: &SecretKey) -> Self {
        let payload = canon::encode(statement);
        let signature = key.0.sign(&message(T::DOMAIN, &payload));
        Self {
            payload: payload.into(),
            signer: key.public().to_vec().into(),
            signature: signature.to_bytes().to_vec().into(),
            inclusion: None,
            kind: PhantomData,
        }
    }

    /// Nothing, signed by nobody: it neither opens nor reads back. It stands where a simulation, whose hosts have no keys, has to
    /// put something signed.
    pub fn nothing() -> Self {
        let (payload, signer, signature) = (Bytes::default(), Bytes::default(), Bytes::default());
        Self { payload, signer, signature, inclusion: None, kind: PhantomData }
    }

    /// The statement and its signer's public key, when the signature holds.
    ///
    /// # Errors
    /// When it does not, or the payload is not a canonical statement of this kind.
    pub fn open(&self) -> Result<(T, [u8; 32]), SignatureError> {
        self.open_by(Signed::check)
    }

    /// The same, where `believe` says of the head of a batch whether it is signed: who sees many statements of one batch
    /// need check it once.
    ///
    /// # Errors
    /// When it is not, the statement is not of that batch, or the payload is not a canonical statement of this kind.
    pub fn open_by<E: From<SignatureError>>(
        &self,
        believe: impl FnOnce(&Signed<Head>) -> Result<(), E>,
    ) -> Result<(T, [u8; 32]), E> {
        let signer = self.signer()?;
        match self.head() {
            None => self.check()?,
            Some(head) => {
                self.check_inclusion(NodeId(signer))?;
                believe(&head)?;
            }
        }
        Ok((self.peek()?, signer))
    }

    /// The head of the batch that it stands in, with the head's signature; none when it was signed for itself.
    pub fn head(&self) -> Option<Signed<Head>> {
        let head = &self.inclusion.as_ref()?.head;
        let (signer, signature) = (self.signer.clone(), self.signature.clone());
        Some(Signed { payload: canon::encode(head).into(), signer, signature, inclusion: None, kind: PhantomData })
    }

    /// Where in which batch it stands; nowhere when it was signed for itself.
    pub fn inclusion(&self) -> Option<&Inclusion> {
        self.inclusion.as_deref()
    }

    fn signer(&self) -> Result<[u8; 32], SignatureError> {
        self.signer.0.as_slice().try_into().map_err(|_| SignatureError::Key)
    }

    fn check_inclusion(&self, signer: NodeId) -> Result<(), SignatureError> {
        let leaf = || merkle::leaf(T::DOMAIN, &self.payload);
        self.inclusion.as_ref().map_or(Ok(()), |inclusion| inclusion.check(leaf(), signer))
    }

    /// Checks the signature over the payload.
    fn check(&self) -> Result<(), SignatureError> {
        let key = VerifyingKey::from_bytes(&self.signer()?).map_err(|_| SignatureError::Key)?;
        let mismatch = SignatureError::Mismatch { domain: T::DOMAIN };
        let Ok(signature) = Signature::from_slice(&self.signature.0) else { return Err(mismatch) };
        key.verify_strict(&message(T::DOMAIN, &self.payload), &signature).map_err(|_| mismatch)
    }

    /// The statement without looking at the signature: for what this process itself sealed or opened before.
    ///
    /// # Errors
    /// When the payload is not a canonical statement of this kind.
    pub fn peek(&self) -> Result<T, SignatureError> {
        decode(&self.payload)
    }
}

impl<T: Statement> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({}, {} bytes)", T::DOMAIN, self.payload.len())
    }
}

fn decode<T: Statement>(payload: &[u8]) -> Result<T, SignatureError> {
    canon::decode(payload, T::BYTES_MAX).map_err(|source| SignatureError::Payload { domain: T::DOMAIN, source })
}

fn message(domain: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(domain.len() + 1 + payload.len());
    message.extend_from_slice(domain.as_bytes());
    message.push(0);
    message.extend_from_slice(payload);
    message
}
