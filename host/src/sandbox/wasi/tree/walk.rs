//! From a path to a place: one component at a time, through symbolic links, never above where it starts.
//!
//! A path starts at an open directory and is held to it, `..` and links included: what would lead above is not capable of
//! being reached, whatever lies there. So a descriptor of a directory is the right to what is below it and no more.

use super::{Body, Errno, Ino, Tree};
use crate::limits;

/// What a walk does with a link that is the last component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox::wasi) enum Last {
    /// Goes on to where it leads.
    Follow,
    /// Ends at the link itself.
    Keep,
}

/// Where a path leads.
#[derive(Debug)]
pub(in crate::sandbox::wasi) struct Place {
    /// The directory that holds the last component.
    pub(in crate::sandbox::wasi) parent: Ino,
    /// The last component; none when the path ends in a directory itself (`.`, `..`).
    pub(in crate::sandbox::wasi) name: Option<String>,
    /// What is there.
    pub(in crate::sandbox::wasi) found: Option<Ino>,
    /// Whether the path insists on a directory.
    pub(in crate::sandbox::wasi) slash: bool,
}

impl Tree {
    /// Follows `path` from the directory `start`. Adds the length of every link on the way to `followed_bytes`: what they
    /// lead through is work that nobody has paid for yet.
    pub(in crate::sandbox::wasi) fn locate(
        &self,
        start: Ino,
        path: &str,
        last: Last,
        followed_bytes: &mut u64,
    ) -> Result<Place, Errno> {
        let (mut at, mut links) = (start, 0);
        let mut slash = insists(path);
        // What is still to come, the next component at the end.
        let mut ahead = components(path);
        while let Some(part) = ahead.pop() {
            if part.len() > limits::PATH_NAME_BYTES_MAX {
                return Err(Errno::NameTooLong);
            }
            let dir = self.dir(at)?;
            if part == ".." {
                if at == start {
                    return Err(Errno::NotCapable);
                }
                at = dir.parent;
                continue;
            }
            let found = dir.entries.get(part).map(|entry| entry.ino);
            let ends = ahead.is_empty();
            let target = match found.map(|ino| self.node(ino)).transpose()?.map(|node| &node.body) {
                Some(Body::Link(target)) if !ends || last == Last::Follow => target,
                _ if !ends => {
                    at = found.ok_or(Errno::NoEnt)?;
                    continue;
                }
                Some(Body::File(_) | Body::Input(_) | Body::Link(_)) if slash => return Err(Errno::NotDir),
                _ => return Ok(Place { parent: at, name: Some(part.to_owned()), found, slash }),
            };
            links += 1;
            if links > limits::LINKS_FOLLOWED_MAX {
                return Err(Errno::Loop);
            }
            *followed_bytes = followed_bytes.saturating_add(target.len() as u64);
            slash |= ends && insists(target);
            ahead.extend(components(target));
        }
        Ok(Place { parent: self.parent(at)?, name: None, found: Some(at), slash })
    }
}

/// Components, the first at the end; none of them is empty or `.`.
fn components(path: &str) -> Vec<&str> {
    path.rsplit('/').filter(|part| !part.is_empty() && *part != ".").collect()
}

/// Whether a path can only be a directory's.
fn insists(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.") || path == "."
}
