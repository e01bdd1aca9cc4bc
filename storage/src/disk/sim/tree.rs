//! The names of a simulated disk, and what of them is durable.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use super::inode::Inode;
use crate::disk::{DirectoryEntry, DiskErrorKind};
use crate::entropy::{Entropy, SeededEntropy};

/// Where a file or directory is kept; stays the same whatever it is called.
pub(super) type NodeId = usize;

const ROOT: NodeId = 0;

pub(super) struct Tree {
    /// Never shrinks: a file without a name stays readable through its handles.
    nodes: Vec<Node>,
}

enum Node {
    File(Inode),
    Directory(Names),
}

#[derive(Default)]
struct Names {
    cached: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
    pending: Vec<NameChange>,
}

#[derive(Clone)]
enum NameChange {
    Link(String, NodeId),
    Unlink(String),
    Rename {
        from: String,
        to: String,
        node: NodeId,
    },
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, NodeId>) {
        match self {
            Self::Link(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
            Self::Rename { from, to, node } => {
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to.clone(), *node);
            }
        }
    }
}

impl Names {
    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.cached);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.durable);
        }
    }

    fn crash(&mut self, entropy: &SeededEntropy) {
        let in_order = entropy.below(2) == 0;
        let cut = entropy.below(self.pending.len() as u64 + 1) as usize;
        for (number, change) in std::mem::take(&mut self.pending).iter().enumerate() {
            let kept = match in_order {
                true => number < cut,
                false => entropy.below(2) == 0,
            };
            if kept {
                change.apply(&mut self.durable);
            }
        }
        self.cached.clone_from(&self.durable);
    }
}

impl Tree {
    pub fn new() -> Self {
        Self {
            nodes: vec![Node::Directory(Names::default())],
        }
    }

    pub fn find(&self, path: &Path) -> Result<NodeId, DiskErrorKind> {
        let mut node = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            let names = self.names(node)?;
            let name = name.to_str().ok_or(DiskErrorKind::NotFound)?;
            node = *names.cached.get(name).ok_or(DiskErrorKind::NotFound)?;
        }
        Ok(node)
    }

    pub fn inode(&mut self, node: NodeId) -> Result<&mut Inode, DiskErrorKind> {
        match self.nodes.get_mut(node) {
            Some(Node::File(inode)) => Ok(inode),
            _ => Err(DiskErrorKind::Io("is a directory".to_owned())),
        }
    }

    pub fn file_mut(&mut self, path: &Path) -> Option<&mut Inode> {
        let node = self.find(path).ok()?;
        self.inode(node).ok()
    }

    /// Fails unless a file could be created there.
    pub fn check_free(&self, path: &Path) -> Result<(), DiskErrorKind> {
        let (parent, name) = self.place(path)?;
        match self.names(parent)?.cached.contains_key(&name) {
            true => Err(DiskErrorKind::AlreadyExists),
            false => Ok(()),
        }
    }

    pub fn create_file(&mut self, path: &Path) -> Result<NodeId, DiskErrorKind> {
        self.create(path, Node::File(Inode::default()))
    }

    pub fn create_directory(&mut self, path: &Path) -> Result<NodeId, DiskErrorKind> {
        self.create(path, Node::Directory(Names::default()))
    }

    pub fn is_directory(&self, node: NodeId) -> bool {
        matches!(self.nodes.get(node), Some(Node::Directory(_)))
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> Result<(), DiskErrorKind> {
        let node = self.find(from)?;
        let (from_parent, from) = self.place(from)?;
        let (to_parent, to) = self.place(to)?;
        if from_parent == to_parent {
            let change = NameChange::Rename { from, to, node };
            self.names_mut(from_parent)?.change(change);
        } else {
            self.names_mut(to_parent)?
                .change(NameChange::Link(to, node));
            self.names_mut(from_parent)?
                .change(NameChange::Unlink(from));
        }
        Ok(())
    }

    pub fn remove_file(&mut self, path: &Path) -> Result<(), DiskErrorKind> {
        let node = self.find(path)?;
        self.inode(node)?;
        let (parent, name) = self.place(path)?;
        self.names_mut(parent)?.change(NameChange::Unlink(name));
        Ok(())
    }

    pub fn remove_directory(&mut self, path: &Path) -> Result<(), DiskErrorKind> {
        let node = self.find(path)?;
        if !self.names(node)?.cached.is_empty() {
            return Err(DiskErrorKind::Io("directory not empty".to_owned()));
        }
        let (parent, name) = self.place(path)?;
        self.names_mut(parent)?.change(NameChange::Unlink(name));
        Ok(())
    }

    pub fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>, DiskErrorKind> {
        let names = self.names(self.find(path)?)?;
        let entry = |(name, node): (&String, &NodeId)| {
            let length = match self.nodes.get(*node) {
                Some(Node::File(inode)) => inode.bytes().len() as u64,
                _ => 0,
            };
            DirectoryEntry {
                name: name.clone(),
                is_directory: self.is_directory(*node),
                length,
            }
        };
        Ok(names.cached.iter().map(entry).collect())
    }

    pub fn sync_directory(&mut self, path: &Path) -> Result<(), DiskErrorKind> {
        let node = self.find(path)?;
        self.names_mut(node)?.sync();
        Ok(())
    }

    pub fn crash(&mut self, entropy: &SeededEntropy) {
        for node in &mut self.nodes {
            match node {
                Node::File(inode) => inode.crash(entropy),
                Node::Directory(names) => names.crash(entropy),
            }
        }
    }

    /// Bytes of all files that have a name.
    pub fn used_bytes(&self) -> u64 {
        let mut total = 0;
        let mut open = vec![ROOT];
        while let Some(node) = open.pop() {
            match self.nodes.get(node) {
                Some(Node::File(inode)) => total += inode.bytes().len() as u64,
                Some(Node::Directory(names)) => open.extend(names.cached.values()),
                None => {}
            }
        }
        total
    }

    fn create(&mut self, path: &Path, node: Node) -> Result<NodeId, DiskErrorKind> {
        self.check_free(path)?;
        let (parent, name) = self.place(path)?;
        let id = self.nodes.len();
        self.nodes.push(node);
        self.names_mut(parent)?.change(NameChange::Link(name, id));
        Ok(id)
    }

    /// The directory a path lies in, and its last component.
    fn place(&self, path: &Path) -> Result<(NodeId, String), DiskErrorKind> {
        let parent = path.parent().ok_or(DiskErrorKind::AlreadyExists)?;
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or(DiskErrorKind::AlreadyExists)?;
        Ok((self.find(parent)?, name.to_owned()))
    }

    fn names(&self, node: NodeId) -> Result<&Names, DiskErrorKind> {
        match self.nodes.get(node) {
            Some(Node::Directory(names)) => Ok(names),
            _ => Err(DiskErrorKind::NotFound),
        }
    }

    fn names_mut(&mut self, node: NodeId) -> Result<&mut Names, DiskErrorKind> {
        match self.nodes.get_mut(node) {
            Some(Node::Directory(names)) => Ok(names),
            _ => Err(DiskErrorKind::NotFound),
        }
    }
}
