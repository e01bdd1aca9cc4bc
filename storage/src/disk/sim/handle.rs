//! The disk traits over the simulated tree: every call counts, meets its fault, and then happens.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::MutexGuard;

use super::fault::{Verdict, failure, power_is_off};
use super::tree::NodeId;
use super::{Shared, SimDisk};
use crate::disk::{
    Advice, DirectoryEntry, Disk, DiskError, DiskErrorKind, DiskFile, DiskLock, OpenMode,
};

impl Shared {
    /// A change of names: it happens or not, in one step.
    fn change_names<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, DiskErrorKind>,
    ) -> Result<T, DiskErrorKind> {
        match self.faults.change(&self.entropy)? {
            Verdict::Happens | Verdict::LostWrite => change(self),
            Verdict::FailsBefore => Err(failure()),
            Verdict::FailsAfter => {
                change(self)?;
                Err(failure())
            }
        }
    }

    fn check_room(&mut self, node: NodeId, end: u64) -> Result<(), DiskErrorKind> {
        let Some(capacity) = self.capacity_bytes else {
            return Ok(());
        };
        let length = self.tree.inode(node)?.bytes().len() as u64;
        let growth = end.saturating_sub(length);
        match self.tree.used_bytes() + growth > capacity && growth > 0 {
            true => Err(DiskErrorKind::Full),
            false => Ok(()),
        }
    }

    fn write(&mut self, node: NodeId, bytes: &[u8], offset: u64) -> Result<(), DiskErrorKind> {
        let verdict = self.faults.change(&self.entropy)?;
        self.check_room(node, offset.saturating_add(bytes.len() as u64))?;
        let offset = usize::try_from(offset).map_err(|_| DiskErrorKind::Full)?;
        let inode = self.tree.inode(node)?;
        match verdict {
            Verdict::Happens => inode.write(offset, bytes),
            Verdict::LostWrite => inode.write_lost(offset, bytes),
            Verdict::FailsBefore => return Err(failure()),
            Verdict::FailsAfter => {
                use crate::entropy::Entropy;
                let part = self.entropy.below(bytes.len() as u64 + 1) as usize;
                inode.write(offset, bytes.get(..part).unwrap_or(bytes));
                return Err(failure());
            }
        }
        Ok(())
    }

    fn sync(&mut self, node: NodeId) -> Result<(), DiskErrorKind> {
        let verdict = self.faults.change(&self.entropy)?;
        let halted = self.faults.halted;
        let inode = self.tree.inode(node)?;
        match verdict {
            Verdict::Happens | Verdict::LostWrite => {
                inode.sync();
                Ok(())
            }
            // The crash that follows decides what of it was written.
            _ if halted => Err(power_is_off()),
            Verdict::FailsBefore | Verdict::FailsAfter => {
                inode.sync_failing(&self.entropy);
                Err(failure())
            }
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError> {
        let mut shared = self.shared.lock();
        let found = match mode {
            OpenMode::Read | OpenMode::Write => shared
                .faults
                .alive()
                .and_then(|()| shared.tree.find(path))
                .and_then(|node| shared.tree.inode(node).map(|_| node)),
            OpenMode::CreateNew => shared.change_names(|shared| shared.tree.create_file(path)),
        };
        let node = found.map_err(failed("open", path))?;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            boot: shared.boot,
            node,
            path: path.to_owned(),
            writable: mode != OpenMode::Read,
        }))
    }

    fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        let mut shared = self.shared.lock();
        if let Ok(node) = shared.tree.find(path)
            && shared.tree.is_directory(node)
        {
            let alive = shared.faults.alive();
            return alive.map_err(failed("create_directory", path));
        }
        shared
            .change_names(|shared| shared.tree.create_directory(path).map(|_| ()))
            .map_err(failed("create_directory", path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.shared
            .lock()
            .change_names(|shared| shared.tree.rename(from, to))
            .map_err(failed("rename", from))
    }

    fn remove_file(&self, path: &Path) -> Result<(), DiskError> {
        self.shared
            .lock()
            .change_names(|shared| shared.tree.remove_file(path))
            .map_err(failed("remove_file", path))
    }

    fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.shared
            .lock()
            .change_names(|shared| shared.tree.remove_directory(path))
            .map_err(failed("remove_directory", path))
    }

    fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>, DiskError> {
        let shared = self.shared.lock();
        let alive = shared.faults.alive();
        alive
            .and_then(|()| shared.tree.list(path))
            .map_err(failed("list", path))
    }

    fn sync_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.shared
            .lock()
            .change_names(|shared| shared.tree.sync_directory(path))
            .map_err(failed("sync_directory", path))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, DiskError> {
        let mut shared = self.shared.lock();
        let failed = failed("lock", path);
        shared.faults.alive().map_err(&failed)?;
        if shared.tree.find(path).is_err() {
            shared
                .change_names(|shared| shared.tree.create_file(path))
                .map_err(&failed)?;
        }
        match shared.locks.insert(path.to_owned()) {
            false => Err(failed(DiskErrorKind::Locked)),
            true => Ok(Box::new(SimLock {
                disk: self.clone(),
                boot: shared.boot,
                path: path.to_owned(),
            })),
        }
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, DiskError> {
        let shared = self.shared.lock();
        shared.faults.alive().map_err(failed("free_bytes", path))?;
        Ok(match shared.capacity_bytes {
            None => u64::MAX / 2,
            Some(capacity) => capacity.saturating_sub(shared.tree.used_bytes()),
        })
    }
}

struct SimLock {
    disk: SimDisk,
    boot: u64,
    path: PathBuf,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut shared = self.disk.shared.lock();
        if shared.boot == self.boot {
            shared.locks.remove(&self.path);
        }
    }
}

struct SimFile {
    disk: SimDisk,
    boot: u64,
    node: NodeId,
    path: PathBuf,
    writable: bool,
}

impl SimFile {
    fn alive(&self) -> Result<MutexGuard<'_, Shared>, DiskErrorKind> {
        let shared = self.disk.shared.lock();
        match shared.boot == self.boot {
            true => Ok(shared),
            false => Err(power_is_off()),
        }
    }

    fn writable(&self) -> Result<MutexGuard<'_, Shared>, DiskErrorKind> {
        match self.writable {
            true => self.alive(),
            false => Err(DiskErrorKind::PermissionDenied),
        }
    }

    fn read(&self, offset: u64, length: u64) -> Result<Bytes, DiskErrorKind> {
        let mut shared = self.alive()?;
        shared.faults.read(&self.path, offset, length)?;
        let bytes = shared.tree.inode(self.node)?.bytes();
        let end = offset
            .checked_add(length)
            .ok_or(DiskErrorKind::UnexpectedEnd)?;
        let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
        range
            .and_then(|(from, to)| bytes.get(from..to))
            .map(Bytes::copy_from_slice)
            .ok_or(DiskErrorKind::UnexpectedEnd)
    }
}

impl DiskFile for SimFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn length(&self) -> Result<u64, DiskError> {
        self.alive()
            .and_then(|mut shared| {
                shared.faults.alive()?;
                Ok(shared.tree.inode(self.node)?.bytes().len() as u64)
            })
            .map_err(failed("length", &self.path))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
        let bytes = self
            .read(offset, buffer.len() as u64)
            .map_err(failed("read", &self.path))?;
        buffer.copy_from_slice(&bytes);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        self.writable()
            .and_then(|mut shared| shared.write(self.node, bytes, offset))
            .map_err(failed("write", &self.path))
    }

    fn write_vectored_at(&self, slices: &[IoSlice<'_>], offset: u64) -> Result<(), DiskError> {
        let bytes: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter())
            .copied()
            .collect();
        self.write_all_at(&bytes, offset)
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.alive()
            .and_then(|mut shared| shared.sync(self.node))
            .map_err(failed("sync_data", &self.path))
    }

    fn set_length(&self, length: u64) -> Result<(), DiskError> {
        let cut = |mut shared: MutexGuard<'_, Shared>| {
            shared.check_room(self.node, length)?;
            let length = usize::try_from(length).map_err(|_| DiskErrorKind::Full)?;
            shared.change_names(|shared| {
                shared.tree.inode(self.node)?.set_length(length);
                Ok(())
            })
        };
        self.writable()
            .and_then(cut)
            .map_err(failed("set_length", &self.path))
    }

    fn advise(&self, _offset: u64, _length: u64, advice: Advice) {
        if advice == Advice::DontNeed
            && let Ok(mut shared) = self.alive()
            && let Ok(inode) = shared.tree.inode(self.node)
        {
            inode.drop_cache();
        }
    }

    fn map(&self, length: u64) -> Result<Bytes, DiskError> {
        self.read(0, length).map_err(failed("map", &self.path))
    }
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(DiskErrorKind) -> DiskError {
    move |kind| DiskError {
        operation,
        path: path.to_owned(),
        kind,
    }
}
