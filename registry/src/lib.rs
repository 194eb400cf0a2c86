//! What has an address in a Quorate grid, and what is signed.
//!
//! Reading order:
//! - [`id`]: newtype hashes and keys; nothing else names a thing.
//! - [`canon`]: the one canonical CBOR codec. What is hashed or signed goes through it and nothing else does.
//! - [`preimage`]: what a hash in a signed record is of, so that it can be handed on without trust.
//! - [`sign`]: domain-separated ed25519 signatures over the exact bytes, of one statement or of a batch. [`merkle`]: the trees
//!   over batches.
//! - [`name`]: `publisher/name@version`, signed, immutable, yankable.
//! - [`manifest`]: what a publisher says of a task module or a model.
//! - [`tolerance`]: how far two backends may differ on one model. [`device`]: what inference runs on.
//! - [`job`]: what a submitter asks for, and the task, one pure function call, that a host runs.
//! - [`membership`]: an operator's certificate for its machine; the ticket that leads to a grid.
//! - [`receipt`]: what a host signs about one execution, and evidence against a host that signed a wrong one.
//! - [`reputation`]: what an operator has shown, and the changes that led there.
//! - [`log`]: what a host signed, what was kept of a job, and what became of an operator's standing, each chained by hashes, in files.
//! - [`merkle`]: one hash for a list, and proofs of what is in it.
//! - [`segment`]: the states that a stepped task goes through, the root over them that a receipt signs, and snapshots.
//! - [`dispute`]: two receipts that differ, and the one segment that says which of them is wrong.
//! - [`audit`]: which results are run again, drawn so that anyone can draw again afterwards.
//! - [`credits`]: money. [`price`]: a host's prices, and the bill that follows from them and a receipt.
//! - `store` (feature): blobs on disk and between peers, over iroh-blobs.
//!
//! Without the feature `store` the crate has no I/O and no async runtime: an auditor needs nothing more to check receipts.

pub mod audit;
pub mod canon;
pub mod credits;
pub mod device;
pub mod dispute;
pub mod id;
pub mod job;
pub mod log;
pub mod manifest;
pub mod membership;
pub mod merkle;
pub mod name;
pub mod preimage;
pub mod price;
pub mod receipt;
pub mod reputation;
pub mod segment;
pub mod sign;
#[cfg(feature = "store")]
pub mod store;
pub mod tolerance;
