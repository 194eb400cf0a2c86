//! The file tree in memory: `/in` fixed, `/tmp` scratch, `/out` output.
//!
//! Nodes and names are numbered in the order they come into being and numbers are never used again, so inode numbers and
//! directory order are the same in every run. A file may have several names (hard links) within its zone, and one that is
//! removed while open lives on until it is closed. Symbolic links are followed in [`walk`] and lead nowhere but inside the
//! directory that a path starts at.
//!
//! Room is counted by [`crate::sandbox::state::Quota`]; here are names, counts and bytes. Each name of a file under `/out`
//! is an output, so each is counted; a symbolic link is none.

mod walk;

use std::collections::BTreeMap;

use bytes::Bytes;
use registry::receipt::{OUTPUT_FILES_MAX, OUTPUT_PATH_BYTES_MAX};

pub(super) use self::walk::{Last, Place};
use super::{clock::REALTIME_START_NS, errno::Errno};
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

/// A file, directory or symbolic link.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) zone: Zone,
    /// Entries of directories that lead to it: none once it is removed.
    names: u32,
    opens: u32,
    pub(super) times: Times,
    pub(super) body: Body,
}

/// When a node was read and written, in nanoseconds since 1970: where the clock starts, until the guest sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) accessed: u64,
    pub(super) modified: u64,
}

impl Times {
    const START: Self = Self { accessed: REALTIME_START_NS, modified: REALTIME_START_NS };
}

/// What a node holds.
#[derive(Debug)]
pub(super) enum Body {
    Dir(Dir),
    Input(Bytes),
    File(Vec<u8>),
    /// Where a symbolic link leads: a relative path.
    Link(String),
}

/// A directory. It has one name.
#[derive(Debug)]
pub(super) struct Dir {
    parent: Ino,
    name_bytes: usize,
    entries: BTreeMap<String, Entry>,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
struct Entry {
    ino: Ino,
    /// Grows from name to name.
    serial: u64,
}

impl Node {
    pub(super) fn is_dir(&self) -> bool {
        matches!(self.body, Body::Dir(_))
    }

    fn is_file(&self) -> bool {
        matches!(self.body, Body::File(_) | Body::Input(_))
    }

    /// The content of a file, the path in a link; nothing for a directory.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.body {
            Body::Dir(_) => &[],
            Body::Input(bytes) => bytes,
            Body::File(bytes) => bytes,
            Body::Link(target) => target.as_bytes(),
        }
    }

    /// Its names, as `filestat` counts them.
    pub(super) fn names(&self) -> u32 {
        self.names
    }

    /// How often its bytes count: once, but under `/out` for each name.
    pub(super) fn copies(&self) -> u64 {
        if self.zone == Zone::Out { self.names.max(1).into() } else { 1 }
    }
}

/// Room that a removal gave back.
pub(super) type Freed = Option<(Zone, u64)>;

/// The tree of one task.
#[derive(Debug)]
pub(in crate::sandbox) struct Tree {
    nodes: BTreeMap<Ino, Node>,
    next: Ino,
    next_name: u64,
    /// These two as the tree was made.
    first: (Ino, u64),
    /// Names that the guest made and that still exist.
    made: usize,
    out_files: usize,
}

impl Tree {
    pub(in crate::sandbox) fn new(files: BTreeMap<String, Bytes>) -> Self {
        let mut tree = Self { nodes: BTreeMap::new(), next: ROOT, next_name: 0, first: (0, 0), made: 0, out_files: 0 };
        for (zone, name) in [(Zone::Fixed, ""), (Zone::Fixed, "in"), (Zone::Out, "out"), (Zone::Tmp, "tmp")] {
            tree.add(zone, ROOT, name, Dir::body(ROOT, name));
        }
        for (name, bytes) in files {
            tree.add(Zone::Fixed, IN, &name, Body::Input(bytes));
        }
        tree.first = (tree.next, tree.next_name);
        tree
    }

    /// Whether it is as it was made.
    pub(in crate::sandbox) fn is_untouched(&self) -> bool {
        let is_untouched = |node: &Node| node.times == Times::START && node.opens == 0;
        // Numbers are never used again.
        (self.next, self.next_name) == self.first && self.nodes.values().all(is_untouched)
    }

    fn add(&mut self, zone: Zone, parent: Ino, name: &str, body: Body) -> Ino {
        let ino = self.next;
        self.next += 1;
        let times = Times::START;
        self.nodes.insert(ino, Node { zone, names: 0, opens: 0, times, body });
        if ino == ROOT {
            // Nothing lists the root, and nothing removes it.
            self.nodes.entry(ino).and_modify(|node| node.names = 1);
        } else {
            self.enter(parent, name, ino);
        }
        ino
    }

    /// Lists a node in a directory.
    fn enter(&mut self, parent: Ino, name: &str, ino: Ino) {
        let serial = self.next_name;
        if let Some(Node { body: Body::Dir(dir), .. }) = self.nodes.get_mut(&parent) {
            dir.entries.insert(name.to_owned(), Entry { ino, serial });
            self.next_name += 1;
        }
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.names += 1;
            if let Body::Dir(dir) = &mut node.body {
                (dir.parent, dir.name_bytes) = (parent, name.len());
            }
        }
    }

    /// Takes a name off its directory's list.
    fn leave(&mut self, parent: Ino, name: &str) -> Result<Ino, Errno> {
        let Body::Dir(dir) = &mut self.node_mut(parent)?.body else { return Err(Errno::NotDir) };
        let ino = dir.entries.remove(name).ok_or(Errno::NoEnt)?.ino;
        self.node_mut(ino)?.names -= 1;
        Ok(ino)
    }

    pub(super) fn node(&self, ino: Ino) -> Result<&Node, Errno> {
        self.nodes.get(&ino).ok_or(Errno::NoEnt)
    }

    pub(super) fn node_mut(&mut self, ino: Ino) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&ino).ok_or(Errno::NoEnt)
    }

    fn dir(&self, ino: Ino) -> Result<&Dir, Errno> {
        match &self.node(ino)?.body {
            Body::Dir(dir) => Ok(dir),
            _ => Err(Errno::NotDir),
        }
    }

    /// The directory that lists a directory; the root lists itself.
    pub(super) fn parent(&self, ino: Ino) -> Result<Ino, Errno> {
        Ok(self.dir(ino)?.parent)
    }

    /// A directory's names, each with its number, in the order they came into being.
    pub(super) fn list(&self, ino: Ino) -> Result<Vec<(u64, Ino, &str)>, Errno> {
        let entries = &self.dir(ino)?.entries;
        let mut list: Vec<_> =
            entries.iter().map(|(name, Entry { ino, serial })| (*serial, *ino, name.as_str())).collect();
        list.sort_unstable();
        Ok(list)
    }

    /// Whether something new may be named in `parent`, and under which rules.
    pub(super) fn check_room(&self, parent: Ino, name: &str, file: bool) -> Result<Zone, Errno> {
        let dir = self.node(parent)?;
        if dir.zone == Zone::Fixed {
            return Err(Errno::RoFs);
        }
        if dir.names == 0 {
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
            let dir = self.dir(at)?;
            len += dir.name_bytes + 1;
            at = dir.parent;
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
        Ok(self.add(zone, parent, name, Dir::body(parent, name)))
    }

    /// Makes a symbolic link.
    pub(super) fn create_link(&mut self, parent: Ino, name: &str, target: String) -> Result<Ino, Errno> {
        let zone = self.check_room(parent, name, false)?;
        self.made += 1;
        Ok(self.add(zone, parent, name, Body::Link(target)))
    }

    /// Whether `ino` may get another name, and what room that takes.
    pub(super) fn check_hard_link(&self, ino: Ino, parent: Ino, name: &str) -> Result<(Zone, u64), Errno> {
        let node = self.node(ino)?;
        if node.is_dir() {
            return Err(Errno::Perm);
        }
        let zone = self.check_room(parent, name, node.is_file())?;
        if node.zone != zone {
            return Err(Errno::XDev);
        }
        Ok((zone, if zone == Zone::Out { node.bytes().len() as u64 } else { 0 }))
    }

    /// Gives a node the name that [`Tree::check_hard_link`] allowed.
    pub(super) fn hard_link(&mut self, ino: Ino, parent: Ino, name: &str) -> Result<(), Errno> {
        let node = self.node(ino)?;
        self.out_files += usize::from(node.is_file() && node.zone == Zone::Out);
        self.made += 1;
        self.enter(parent, name, ino);
        Ok(())
    }

    /// Whether what a place names may be removed or renamed: `.`, the fixed directories and `/in` may not.
    fn check_removable<'p>(&self, place: &'p Place) -> Result<(Ino, &'p str), Errno> {
        let ino = place.found.ok_or(Errno::NoEnt)?;
        let name = place.name.as_deref().ok_or(Errno::Inval)?;
        if ino <= TMP || self.node(ino)?.zone == Zone::Fixed {
            return Err(Errno::RoFs);
        }
        Ok((ino, name))
    }

    /// Removes a name of a file or link, and the file once it has none left and nobody has it open.
    pub(super) fn remove_file(&mut self, place: &Place) -> Result<Freed, Errno> {
        let (ino, name) = self.check_removable(place)?;
        if self.node(ino)?.is_dir() {
            return Err(Errno::IsDir);
        }
        self.unname(place.parent, name)
    }

    /// Removes an empty directory.
    pub(super) fn remove_dir(&mut self, place: &Place) -> Result<Freed, Errno> {
        let (ino, name) = self.check_removable(place)?;
        if !self.dir(ino)?.entries.is_empty() {
            return Err(Errno::NotEmpty);
        }
        self.unname(place.parent, name)
    }

    fn unname(&mut self, parent: Ino, name: &str) -> Result<Freed, Errno> {
        let ino = self.leave(parent, name)?;
        self.made -= 1;
        let node = self.node(ino)?;
        let (zone, names, bytes) = (node.zone, node.names, node.bytes().len() as u64);
        self.out_files -= usize::from(zone == Zone::Out && node.is_file());
        // What is left with other names has one copy less.
        Ok(if names > 0 { (zone == Zone::Out).then_some((zone, bytes)) } else { self.drop_unused(ino) })
    }

    fn drop_unused(&mut self, ino: Ino) -> Freed {
        let node = self.nodes.get(&ino)?;
        if node.names > 0 || node.opens > 0 {
            return None;
        }
        let node = self.nodes.remove(&ino)?;
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

    /// What a rename would do, checked: the node to move and the node that it replaces, if any. `None` where both names are
    /// of one file, which leaves both as they are.
    pub(super) fn check_rename(&self, from: &Place, to: &Place) -> Result<Option<(Ino, Option<Ino>)>, Errno> {
        let (ino, _) = self.check_removable(from)?;
        let name = to.name.as_ref().ok_or(Errno::Inval)?;
        let node = self.node(ino)?;
        let target = self.node(to.parent)?;
        if target.zone == Zone::Fixed || to.found.is_some_and(|found| found <= TMP) {
            return Err(Errno::RoFs);
        }
        if target.names == 0 {
            return Err(Errno::NoEnt);
        }
        if node.is_dir() {
            if node.zone != target.zone {
                return Err(Errno::XDev);
            }
            self.check_not_inside(ino, to.parent)?;
        } else if to.slash {
            return Err(Errno::NotDir);
        } else if node.zone != target.zone && node.names > 1 {
            // A file has all its names in one zone.
            return Err(Errno::XDev);
        }
        if let Some(found) = to.found {
            match (node.is_dir(), self.node(found)?.is_dir()) {
                (true, true) if !self.dir(found)?.entries.is_empty() && found != ino => return Err(Errno::NotEmpty),
                (true, false) => return Err(Errno::NotDir),
                (false, true) => return Err(Errno::IsDir),
                _ => {}
            }
        }
        let enters_out = target.zone == Zone::Out && node.zone != Zone::Out && node.is_file();
        if enters_out && to.found.is_none() && self.out_files >= OUTPUT_FILES_MAX {
            return Err(Errno::NoSpc);
        }
        self.check_path(to.parent, name.len() + self.depth(ino))?;
        Ok((to.found != Some(ino)).then_some((ino, to.found)))
    }

    fn check_not_inside(&self, ino: Ino, mut at: Ino) -> Result<(), Errno> {
        while at != ROOT {
            if at == ino {
                return Err(Errno::Inval);
            }
            at = self.parent(at)?;
        }
        Ok(())
    }

    /// Length of the longest path below a node.
    fn depth(&self, ino: Ino) -> usize {
        let (mut open, mut deepest) = (vec![(ino, 0)], 0);
        while let Some((ino, len)) = open.pop() {
            deepest = deepest.max(len);
            if let Ok(dir) = self.dir(ino) {
                open.extend(dir.entries.iter().map(|(name, entry)| (entry.ino, len + 1 + name.len())));
            }
        }
        deepest
    }

    /// Carries out a rename that [`Tree::check_rename`] allowed.
    pub(super) fn rename(&mut self, from: &Place, to: &Place) -> Result<Freed, Errno> {
        let (old, new) = (from.name.as_deref().ok_or(Errno::Inval)?, to.name.as_deref().ok_or(Errno::Inval)?);
        let freed = match to.found {
            Some(_) => self.unname(to.parent, new)?,
            None => None,
        };
        let zone = self.node(to.parent)?.zone;
        let ino = self.leave(from.parent, old)?;
        let node = self.node_mut(ino)?;
        let (old_zone, is_file) = (std::mem::replace(&mut node.zone, zone), node.is_file());
        self.enter(to.parent, new, ino);
        if is_file {
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
            Body::Link(_) => Err(Errno::Loop),
        }
    }

    /// The files under `/out`, by relative path, sorted: a file with several names once for each, symbolic links not at all.
    pub(in crate::sandbox) fn into_outputs(mut self) -> Vec<(String, Bytes)> {
        let (mut open, mut files) = (vec![(OUT, String::new())], Vec::new());
        while let Some((ino, path)) = open.pop() {
            let Some(node) = self.nodes.get_mut(&ino) else { continue };
            match &mut node.body {
                Body::Dir(dir) => open.extend(std::mem::take(&mut dir.entries).into_iter().map(|(name, entry)| {
                    let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                    (entry.ino, path)
                })),
                Body::File(bytes) => {
                    let bytes = Bytes::from(std::mem::take(bytes));
                    node.body = Body::Input(bytes.clone());
                    files.push((path, bytes));
                }
                Body::Input(bytes) => files.push((path, bytes.clone())),
                Body::Link(_) => {}
            }
        }
        files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        files
    }
}

impl Dir {
    fn body(parent: Ino, name: &str) -> Body {
        Body::Dir(Self { parent, name_bytes: name.len(), entries: BTreeMap::new() })
    }
}
