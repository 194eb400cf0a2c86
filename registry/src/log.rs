//! Logs of receipts that anyone can check offline, and the files that hold them.
//!
//! ```text
//! host's log:  head 0 ◄─prev─ head 1 ◄─prev─ head 2     a head is signed and stands for a batch of receipts
//! job's log:   link 0 ◄─prev─ link 1 ◄─prev─ link 2     a link is a hash and stands for a record; the last is signed by the coordinator
//! history:     link 0 ◄─prev─ link 1 ◄─prev─ link 2     a link stands for a change; the last is signed by the coordinator
//! ```
//! - [`mod@file`]: what all these files look like: a line that names the kind, then items, each with its length before it.
//! - [`heads`]: what is known of a host's heads: each is checked once, and two that contradict each other are evidence.
//! - [`host`]: everything that a host signed, in its order.
//! - [`job`]: everything that a job's coordinator kept, accepted records and evidence, in its order.
//! - [`history`]: everything that became of an operator's standing, in its order. [`evidence`]: the receipts that it names.
//! - [`chain`]: what both have in common: an entry follows the one before.
//!
//! # What a log shows, and what not
//! Nothing in it can be changed, left out, put in or moved without it being seen, up to the last entry: a log that ends
//! earlier is a log. Who knows its end from elsewhere (a tip that the host showed, the head in the list of a job's records)
//! holds the log against that. The ends of jobs' logs and of histories are signed by their coordinator: it could sign another one, and
//! then both are evidence against it.

pub mod chain;
pub mod evidence;
pub mod file;
pub mod heads;
pub mod history;
pub mod host;
pub mod job;
#[cfg(test)]
mod tests;

pub use self::{
    evidence::Receipts,
    file::{Kind, LogError, Place},
    heads::{Conflict, Heads},
    history::History,
    host::HostLog,
    job::{Entry, JobHead, JobLog, link},
};
