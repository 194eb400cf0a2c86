//! The file tree in memory: `/in` fixed, `/tmp` scratch, `/out` output.
//!
//! Nodes are numbered in the order they come into being and numbers are never used again, so inode numbers and directory
//! order are the same in every run. A file that is removed while open lives on until it is closed. Room is counted by
//! [`crate::sandbox::state::Quota`]; here are names, counts and bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use registry::receipt::{OUTPUT_FILES_MAX, OUTPUT_PATH_BYTES_MAX};

use super::errno::Errno;
use crate::limits;

/// A node's number.
pub(in crate::sandbox) type Ino = u64;

/// `/`.
pub(super) const ROOT: Ino = 1;
const IN: Ino = 2;
const OUT: Ino = 3;
const TMP: Ino = 4;

/// Which rules a node lives under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum Zone {
    /// `/` and `/in`: nothing can change.
    Fixed,
    /// `/tmp`.
    Tmp,
    /// `/out`.
    Out,
}

/// A file or directory.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) zone: Zone,
    pub(super) parent: Ino,
    name: String,
    /// Whether a directory still lists it.
    named: bool,
    opens: u32,
    pub(super) body: Body,
}

/// What a node holds.
#[derive(Debug)]
pub(super) enum Body {
    Dir(BTreeMap<String, Ino>),
    Input(Bytes),
    File(Vec<u8>),
}

impl Node {
    pub(super) fn is_dir(&self) -> bool {
        matches!(self.body, Body::Dir(_))
    }

    /// The content of a file; nothing for a directory.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.body {
            Body::Dir(_) => &[],
            Body::Input(bytes) => bytes,
            Body::File(bytes) => bytes,
        }
    }
}

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Place<'p> {
    /// The directory that holds the last component.
    pub(super) parent: Ino,
    /// The last component; none when the path ends in a directory itself (`.`, `..`).
    pub(super) name: Option<&'p str>,
    /// What is there.
    pub(super) found: Option<Ino>,
    /// Whether the path insists on a directory.
    pub(super) slash: bool,
}

/// Room that a removal gave back.
pub(super) type Freed = Option<(Zone, u64)>;

/// The tree of one task.
#[derive(Debug)]
pub(in crate::sandbox) struct Tree {
    nodes: BTreeMap<Ino, Node>,
    next: Ino,
    /// Nodes that the guest made and that still exist.
    made: usize,
    out_files: usize,
}

impl Tree {
    pub(in crate::sandbox) fn new(files: BTreeMap<String, Bytes>) -> Self {
        let mut tree = Self { nodes: BTreeMap::new(), next: ROOT, made: 0, out_files: 0 };
        let dir = || Body::Dir(BTreeMap::new());
        tree.add(Zone::Fixed, ROOT, "", dir());
        tree.add(Zone::Fixed, ROOT, "in", dir());
        tree.add(Zone::Out, ROOT, "out", dir());
        tree.add(Zone::Tmp, ROOT, "tmp", dir());
        for (name, bytes) in files {
            tree.add(Zone::Fixed, IN, &name, Body::Input(bytes));
        }
        tree
    }

    fn add(&mut self, zone: Zone, parent: Ino, name: &str, body: Body) -> Ino {
        let ino = self.next;
        self.next += 1;
        if let Some(Node { body: Body::Dir(entries), .. }) = self.nodes.get_mut(&parent) {
            entries.insert(name.to_owned(), ino);
        }
        self.nodes.insert(ino, Node { zone, parent, name: name.to_owned(), named: true, opens: 0, body });
        ino
    }

    pub(super) fn node(&self, ino: Ino) -> Result<&Node, Errno> {
        self.nodes.get(&ino).ok_or(Errno::NoEnt)
    }

    fn node_mut(&mut self, ino: Ino) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&ino).ok_or(Errno::NoEnt)
    }

    fn entries(&self, ino: Ino) -> Result<&BTreeMap<String, Ino>, Errno> {
        match &self.node(ino)?.body {
            Body::Dir(entries) => Ok(entries),
            _ => Err(Errno::NotDir),
        }
    }

    /// A directory's entries in the order they came into being.
    pub(super) fn list(&self, ino: Ino) -> Result<Vec<(Ino, &str)>, Errno> {
        let mut list: Vec<_> = self.entries(ino)?.iter().map(|(name, ino)| (*ino, name.as_str())).collect();
        list.sort_unstable();
        Ok(list)
    }

    /// Follows `path` from the directory `start`. `..` of the root is the root: there is nothing above it.
    pub(super) fn locate<'p>(&self, start: Ino, path: &'p str) -> Result<Place<'p>, Errno> {
        let mut at = start;
        let mut parts = path.split('/').filter(|part| !part.is_empty() && *part != ".").peekable();
        let slash = path.ends_with('/') || path.ends_with("/.") || path == ".";
        while let Some(part) = parts.next() {
            if part.len() > limits::PATH_NAME_BYTES_MAX {
                return Err(Errno::NameTooLong);
            }
            let entries = self.entries(at)?;
            if part == ".." {
                at = self.node(at)?.parent;
                continue;
            }
            let found = entries.get(part).copied();
            if parts.peek().is_some() {
                at = found.ok_or(Errno::NoEnt)?;
                continue;
            }
            if slash && found.is_some_and(|ino| self.entries(ino).is_err()) {
                return Err(Errno::NotDir);
            }
            return Ok(Place { parent: at, name: Some(part), found, slash });
        }
        self.entries(at)?;
        Ok(Place { parent: self.node(at)?.parent, name: None, found: Some(at), slash })
    }

    /// Whether something new may be named in `parent`.
    fn check_room(&self, parent: Ino, name: &str, file: bool) -> Result<Zone, Errno> {
        let dir = self.node(parent)?;
        if dir.zone == Zone::Fixed {
            return Err(Errno::RoFs);
        }
        if !dir.named {
            return Err(Errno::NoEnt);
        }
        if self.made >= limits::NODES_MAX || (file && dir.zone == Zone::Out && self.out_files >= OUTPUT_FILES_MAX) {
            return Err(Errno::NoSpc);
        }
        self.check_path(parent, name.len())?;
        Ok(dir.zone)
    }

    /// Whether a path of `tail` bytes below `parent` stays within the bound.
    fn check_path(&self, parent: Ino, tail: usize) -> Result<(), Errno> {
        let (mut at, mut len) = (parent, tail);
        while !matches!(at, ROOT | IN | OUT | TMP) {
            let node = self.node(at)?;
            len += node.name.len() + 1;
            at = node.parent;
        }
        if len <= OUTPUT_PATH_BYTES_MAX { Ok(()) } else { Err(Errno::NameTooLong) }
    }

    /// Makes an empty file.
    pub(super) fn create_file(&mut self, parent: Ino, name: &str) -> Result<Ino, Errno> {
        let zone = self.check_room(parent, name, true)?;
        self.made += 1;
        self.out_files += usize::from(zone == Zone::Out);
        Ok(self.add(zone, parent, name, Body::File(Vec::new())))
    }

    /// Makes an empty directory.
    pub(super) fn create_dir(&mut self, parent: Ino, name: &str) -> Result<Ino, Errno> {
        let zone = self.check_room(parent, name, false)?;
        self.made += 1;
        Ok(self.add(zone, parent, name, Body::Dir(BTreeMap::new())))
    }

    /// Whether what a place names may be removed or renamed: `.`, the fixed directories and `/in` may not.
    fn check_removable(&self, place: &Place<'_>) -> Result<Ino, Errno> {
        let ino = place.found.ok_or(Errno::NoEnt)?;
        if place.name.is_none() {
            return Err(Errno::Inval);
        }
        if ino <= TMP || self.node(ino)?.zone == Zone::Fixed {
            return Err(Errno::RoFs);
        }
        Ok(ino)
    }

    /// Removes a file's name, and the file once nobody has it open.
    pub(super) fn remove_file(&mut self, place: &Place<'_>) -> Result<Freed, Errno> {
        let ino = self.check_removable(place)?;
        if self.node(ino)?.is_dir() {
            return Err(Errno::IsDir);
        }
        self.unname(ino)
    }

    /// Removes an empty directory.
    pub(super) fn remove_dir(&mut self, place: &Place<'_>) -> Result<Freed, Errno> {
        let ino = self.check_removable(place)?;
        if !self.entries(ino)?.is_empty() {
            return Err(Errno::NotEmpty);
        }
        self.unname(ino)
    }

    fn unname(&mut self, ino: Ino) -> Result<Freed, Errno> {
        let node = self.node_mut(ino)?;
        node.named = false;
        let (parent, name) = (node.parent, node.name.clone());
        let is_out_file = node.zone == Zone::Out && !node.is_dir();
        if let Body::Dir(entries) = &mut self.node_mut(parent)?.body {
            entries.remove(&name);
        }
        self.out_files -= usize::from(is_out_file);
        Ok(self.drop_unused(ino))
    }

    fn drop_unused(&mut self, ino: Ino) -> Freed {
        let node = self.nodes.get(&ino)?;
        if node.named || node.opens > 0 {
            return None;
        }
        let node = self.nodes.remove(&ino)?;
        self.made -= 1;
        Some((node.zone, node.bytes().len() as u64))
    }

    /// Counts one more descriptor of a node.
    pub(super) fn open(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.opens += 1;
        }
    }

    /// Counts one descriptor less.
    pub(super) fn release(&mut self, ino: Ino) -> Freed {
        let node = self.nodes.get_mut(&ino)?;
        node.opens = node.opens.saturating_sub(1);
        self.drop_unused(ino)
    }

    /// What a rename would do, checked: the node to move and the node that it replaces, if any.
    pub(super) fn check_rename(&self, from: &Place<'_>, to: &Place<'_>) -> Result<(Ino, Option<Ino>), Errno> {
        let ino = self.check_removable(from)?;
        let name = to.name.ok_or(Errno::Inval)?;
        let node = self.node(ino)?;
        let target = self.node(to.parent)?;
        if target.zone == Zone::Fixed || to.found.is_some_and(|found| found <= TMP) {
            return Err(Errno::RoFs);
        }
        if !target.named {
            return Err(Errno::NoEnt);
        }
        if node.is_dir() {
            if node.zone != target.zone {
                return Err(Errno::XDev);
            }
            self.check_not_inside(ino, to.parent)?;
        } else if to.slash {
            return Err(Errno::NotDir);
        }
        if let Some(found) = to.found {
            match (node.is_dir(), self.node(found)?.is_dir()) {
                (true, true) if !self.entries(found)?.is_empty() => return Err(Errno::NotEmpty),
                (true, false) => return Err(Errno::NotDir),
                (false, true) => return Err(Errno::IsDir),
                _ => {}
            }
        }
        let enters_out = target.zone == Zone::Out && node.zone != Zone::Out;
        if enters_out && to.found.is_none() && self.out_files >= OUTPUT_FILES_MAX {
            return Err(Errno::NoSpc);
        }
        self.check_path(to.parent, name.len() + self.depth(ino))?;
        Ok((ino, to.found.filter(|found| *found != ino)))
    }

    fn check_not_inside(&self, ino: Ino, mut at: Ino) -> Result<(), Errno> {
        while at != ROOT {
            if at == ino {
                return Err(Errno::Inval);
            }
            at = self.node(at)?.parent;
        }
        Ok(())
    }

    /// Length of the longest path below a node.
    fn depth(&self, ino: Ino) -> usize {
        let (mut open, mut deepest) = (vec![(ino, 0)], 0);
        while let Some((ino, len)) = open.pop() {
            deepest = deepest.max(len);
            if let Ok(entries) = self.entries(ino) {
                open.extend(entries.iter().map(|(name, ino)| (*ino, len + 1 + name.len())));
            }
        }
        deepest
    }

    /// Carries out a rename that [`Tree::check_rename`] allowed.
    pub(super) fn rename(&mut self, ino: Ino, replaced: Option<Ino>, parent: Ino, name: &str) -> Result<Freed, Errno> {
        let freed = match replaced {
            Some(replaced) => self.unname(replaced)?,
            None => None,
        };
        let zone = self.node(parent)?.zone;
        let node = self.node_mut(ino)?;
        let (old_parent, old_name) = (node.parent, std::mem::replace(&mut node.name, name.to_owned()));
        let (old_zone, is_dir) = (node.zone, node.is_dir());
        (node.parent, node.zone) = (parent, zone);
        if let Body::Dir(entries) = &mut self.node_mut(old_parent)?.body {
            entries.remove(&old_name);
        }
        if let Body::Dir(entries) = &mut self.node_mut(parent)?.body {
            entries.insert(name.to_owned(), ino);
        }
        if !is_dir {
            self.out_files -= usize::from(old_zone == Zone::Out);
            self.out_files += usize::from(zone == Zone::Out);
        }
        Ok(freed)
    }

    /// The bytes of a file that may be written to.
    pub(super) fn writable(&mut self, ino: Ino) -> Result<&mut Vec<u8>, Errno> {
        match &mut self.node_mut(ino)?.body {
            Body::Dir(_) => Err(Errno::IsDir),
            Body::Input(_) => Err(Errno::RoFs),
            Body::File(bytes) => Ok(bytes),
        }
    }

    /// The files under `/out`, by relative path, sorted.
    pub(in crate::sandbox) fn into_outputs(mut self) -> Vec<(String, Bytes)> {
        let (mut open, mut files) = (vec![(OUT, String::new())], Vec::new());
        while let Some((ino, path)) = open.pop() {
            match self.nodes.remove(&ino).map(|node| node.body) {
                Some(Body::Dir(entries)) => open.extend(entries.into_iter().map(|(name, ino)| {
                    let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                    (ino, path)
                })),
                Some(Body::File(bytes)) => files.push((path, Bytes::from(bytes))),
                Some(Body::Input(bytes)) => files.push((path, bytes)),
                None => {}
            }
        }
        files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        files
    }
}
