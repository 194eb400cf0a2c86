//! Domain-separated ed25519 signatures over the exact bytes.
//!
//! What is signed is `DOMAIN || 0x00 || payload`: a signature made for one kind of statement is worth nothing for
//! another. [`Signed`] carries the payload as it was signed, so that nobody has to re-encode anything to check it; the
//! payload itself is canonical and is decoded strictly.

use std::{fmt, marker::PhantomData};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::canon::{self, Bytes, CanonError};

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
            kind: PhantomData,
        }
    }

    /// Nothing, signed by nobody: it neither opens nor reads back. It stands where a simulation, whose hosts have no keys, has to
    /// put something signed.
    pub fn nothing() -> Self {
        let (payload, signer, signature) = (Bytes::default(), Bytes::default(), Bytes::default());
        Self { payload, signer, signature, kind: PhantomData }
    }

    /// The statement and its signer's public key, when the signature holds.
    ///
    /// # Errors
    /// When it does not, or the payload is not a canonical statement of this kind.
    pub fn open(&self) -> Result<(T, [u8; 32]), SignatureError> {
        let signer: [u8; 32] = self.signer.0.as_slice().try_into().map_err(|_| SignatureError::Key)?;
        let key = VerifyingKey::from_bytes(&signer).map_err(|_| SignatureError::Key)?;
        let mismatch = SignatureError::Mismatch { domain: T::DOMAIN };
        let Ok(signature) = Signature::from_slice(&self.signature.0) else { return Err(mismatch) };
        if key.verify_strict(&message(T::DOMAIN, &self.payload), &signature).is_err() {
            return Err(mismatch);
        }
        Ok((self.peek()?, signer))
    }

    /// The statement without looking at the signature: for what this process itself sealed or opened before.
    ///
    /// # Errors
    /// When the payload is not a canonical statement of this kind.
    pub fn peek(&self) -> Result<T, SignatureError> {
        canon::decode(&self.payload, T::BYTES_MAX)
            .map_err(|source| SignatureError::Payload { domain: T::DOMAIN, source })
    }
}

impl<T: Statement> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({}, {} bytes)", T::DOMAIN, self.payload.len())
    }
}

fn message(domain: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(domain.len() + 1 + payload.len());
    message.extend_from_slice(domain.as_bytes());
    message.push(0);
    message.extend_from_slice(payload);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Note {
        text: String,
    }

    impl Statement for Note {
        const DOMAIN: &'static str = "test/note/1";
        const BYTES_MAX: usize = 100;
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        text: String,
    }

    impl Statement for Order {
        const DOMAIN: &'static str = "test/order/1";
        const BYTES_MAX: usize = 100;
    }

    fn note() -> (Note, SecretKey) {
        (Note { text: "hello".into() }, SecretKey::from_bytes(&[7; 32]))
    }

    #[test]
    fn a_sealed_statement_opens_to_itself_and_its_signer() {
        let (note, key) = note();
        assert_eq!(Signed::seal(&note, &key).open().unwrap(), (note, key.public()));
    }

    #[test]
    fn a_changed_byte_anywhere_breaks_it() {
        let (note, key) = note();
        let sealed = canon::encode(&Signed::seal(&note, &key));
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone();
            bytes[at] ^= 1;
            let opened = canon::decode::<Signed<Note>>(&bytes, 1000).ok().and_then(|signed| signed.open().ok());
            assert_eq!(opened, None, "byte {at} changed unnoticed");
        }
    }

    #[test]
    fn a_signature_for_one_kind_is_worth_nothing_for_another() {
        let (note, key) = note();
        let bytes = canon::encode(&Signed::seal(&note, &key));
        let order: Signed<Order> = canon::decode(&bytes, 1000).unwrap();
        assert!(matches!(order.open(), Err(SignatureError::Mismatch { domain: "test/order/1" })));
    }

    #[test]
    fn nothing_is_believed_of_nobody() {
        let nothing = Signed::<Note>::nothing();
        assert!(matches!(nothing.open(), Err(SignatureError::Key)));
        assert!(matches!(nothing.peek(), Err(SignatureError::Payload { .. })));
    }

    #[test]
    fn a_secret_key_does_not_print() {
        assert!(!format!("{:?}", SecretKey::from_bytes(&[7; 32])).contains("0707"));
    }
}
