//! The operating system's files.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, IoSlice};
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use memmap2::MmapOptions;

use super::{Advice, DirectoryEntry, Disk, DiskError, DiskErrorKind, DiskFile, DiskLock, OpenMode};

/// Only the owner reads and writes: streams hold other people's data.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError> {
        let mut options = OpenOptions::new();
        options.read(true).mode(FILE_MODE);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::Write => options.write(true),
            OpenMode::CreateNew => options.write(true).create_new(true),
        };
        let file = options.open(path).map_err(failed("open", path))?;
        Ok(Arc::new(RealFile {
            file,
            path: path.to_owned(),
        }))
    }

    fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        match std::fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            result => result.map_err(failed("create_directory", path)),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        std::fs::rename(from, to).map_err(failed("rename", from))
    }

    fn remove_file(&self, path: &Path) -> Result<(), DiskError> {
        std::fs::remove_file(path).map_err(failed("remove_file", path))
    }

    fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        std::fs::remove_dir(path).map_err(failed("remove_directory", path))
    }

    fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>, DiskError> {
        let failed = failed("list", path);
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path).map_err(&failed)? {
            let entry = entry.map_err(&failed)?;
            // A name that vanishes while the directory is read was not there.
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                result => result.map_err(&failed)?,
            };
            let is_directory = metadata.is_dir();
            entries.push(DirectoryEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                is_directory,
                length: if is_directory { 0 } else { metadata.len() },
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn sync_directory(&self, path: &Path) -> Result<(), DiskError> {
        File::open(path)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("sync_directory", path))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, DiskError> {
        let failed = failed("lock", path);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)
            .map_err(&failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(DiskError {
                operation: "lock",
                path: path.to_owned(),
                kind: DiskErrorKind::Locked,
            }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, DiskError> {
        rustix::fs::statvfs(path)
            .map(|status| status.f_bavail.saturating_mul(status.f_frsize))
            .map_err(|error| failed("free_bytes", path)(error.into()))
    }
}

/// The kernel drops the lock with the descriptor, so that a killed process leaves none behind.
struct RealLock {
    _file: File,
}

impl DiskLock for RealLock {}

struct RealFile {
    file: File,
    path: PathBuf,
}

impl DiskFile for RealFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn length(&self) -> Result<u64, DiskError> {
        self.file
            .metadata()
            .map(|metadata| metadata.len())
            .map_err(failed("length", &self.path))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(failed("read", &self.path))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(failed("write", &self.path))
    }

    fn write_vectored_at(&self, slices: &[IoSlice<'_>], offset: u64) -> Result<(), DiskError> {
        /// What the kernel takes in one call.
        const SLICES_MAX: usize = 1024;
        let failed = failed("write", &self.path);
        let mut slices = slices.to_vec();
        let (mut rest, mut position) = (slices.as_mut_slice(), offset);
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let now = rest.get(..SLICES_MAX).unwrap_or(rest);
            match rustix::io::pwritev(&self.file, now, position) {
                Ok(0) => return Err(failed(ErrorKind::WriteZero.into())),
                Ok(count) => {
                    position += count as u64;
                    IoSlice::advance_slices(&mut rest, count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.file
            .sync_data()
            .map_err(failed("sync_data", &self.path))
    }

    fn set_length(&self, length: u64) -> Result<(), DiskError> {
        self.file
            .set_len(length)
            .map_err(failed("set_length", &self.path))
    }

    fn advise(&self, offset: u64, length: u64, advice: Advice) {
        let Some(span) = NonZeroU64::new(length) else {
            return;
        };
        let advice = match advice {
            Advice::Sequential => rustix::fs::Advice::Sequential,
            Advice::WillNeed => rustix::fs::Advice::WillNeed,
            Advice::DontNeed => rustix::fs::Advice::DontNeed,
            Advice::StartWriteback => return start_writeback(&self.file, offset, length),
        };
        // An advice that is not taken changes nothing but speed.
        let _ = rustix::fs::fadvise(&self.file, offset, Some(span), advice);
    }

    fn map(&self, length: u64) -> Result<Bytes, DiskError> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let failed = failed("map", &self.path);
        let metadata = self.file.metadata().map_err(&failed)?;
        let bytes = usize::try_from(length).map_err(|_| failed(ErrorKind::OutOfMemory.into()))?;
        if metadata.len() < length {
            return Err(failed(ErrorKind::UnexpectedEof.into()));
        }
        // SAFETY: the map is read-only and private to readers of files that are never written, cut or extended again once they
        // are mapped: the contract of `DiskFile::map`. The directory is locked against other processes.
        let map = unsafe { MmapOptions::new().len(bytes).map(&self.file) }.map_err(&failed)?;
        Ok(Bytes::from_owner(map))
    }
}

/// Tells the kernel to begin writing a range back, so that the sync that follows finds little left to do.
#[cfg(target_os = "linux")]
fn start_writeback(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else {
        return;
    };
    // SAFETY: the descriptor is open for the whole call and the call touches no memory of ours.
    unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            offset,
            length,
            libc::SYNC_FILE_RANGE_WRITE,
        );
    }
}

#[cfg(not(target_os = "linux"))]
fn start_writeback(_file: &File, _offset: u64, _length: u64) {}

fn failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> DiskError {
    move |error| DiskError {
        operation,
        path: path.to_owned(),
        kind: match error.kind() {
            ErrorKind::NotFound => DiskErrorKind::NotFound,
            ErrorKind::AlreadyExists => DiskErrorKind::AlreadyExists,
            ErrorKind::UnexpectedEof => DiskErrorKind::UnexpectedEnd,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => DiskErrorKind::Full,
            ErrorKind::PermissionDenied => DiskErrorKind::PermissionDenied,
            _ => DiskErrorKind::Io(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<T>(result: Result<T, DiskError>) -> DiskErrorKind {
        result.err().expect("an error").kind
    }

    #[test]
    fn files_behave_as_the_trait_says() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let missing = RealDisk.open(&path, OpenMode::Write);
        assert_eq!(kind(missing), DiskErrorKind::NotFound);

        let file = RealDisk.open(&path, OpenMode::CreateNew).unwrap();
        let taken = RealDisk.open(&path, OpenMode::CreateNew);
        assert_eq!(kind(taken), DiskErrorKind::AlreadyExists);
        let many: Vec<[u8; 3]> = (0..3000u32).map(|n| [n as u8, 1, 2]).collect();
        let slices: Vec<IoSlice<'_>> = many.iter().map(|part| IoSlice::new(part)).collect();
        file.write_vectored_at(&slices, 5).unwrap();
        file.write_all_at(b"head", 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.length().unwrap(), 9005);
        file.advise(0, 9005, Advice::StartWriteback);
        file.advise(0, 9005, Advice::DontNeed);

        let mut read = vec![0; 9000];
        file.read_exact_at(&mut read, 5).unwrap();
        assert!(read == many.concat());
        let beyond = file.read_exact_at(&mut vec![0; 9000], 6);
        assert_eq!(kind(beyond), DiskErrorKind::UnexpectedEnd);
        assert_eq!(kind(file.map(9006)), DiskErrorKind::UnexpectedEnd);

        let map = file.map(9005).unwrap();
        drop(file);
        RealDisk.remove_file(&path).unwrap();
        assert_eq!(&map[..5], b"head\0");
        assert!(map[5..] == read);
    }

    #[test]
    fn directories_behave_as_the_trait_says() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        RealDisk.create_directory(&inner).unwrap();
        RealDisk.create_directory(&inner).unwrap();
        for name in ["b", "a"] {
            let file = RealDisk
                .open(&inner.join(name), OpenMode::CreateNew)
                .unwrap();
            file.set_length(7).unwrap();
        }
        RealDisk.rename(&inner.join("b"), &inner.join("a")).unwrap();
        RealDisk.sync_directory(&inner).unwrap();
        let entry = |name: &str, is_directory, length| DirectoryEntry {
            name: name.to_owned(),
            is_directory,
            length,
        };
        assert_eq!(RealDisk.list(&inner).unwrap(), [entry("a", false, 7)]);
        let names = RealDisk.list(directory.path()).unwrap();
        assert_eq!(names, [entry("inner", true, 0)]);
        assert!(RealDisk.remove_directory(&inner).is_err());
        RealDisk.remove_file(&inner.join("a")).unwrap();
        RealDisk.remove_directory(&inner).unwrap();
        assert!(RealDisk.free_bytes(directory.path()).unwrap() > 0);
    }

    #[test]
    fn a_lock_has_one_holder_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = RealDisk.lock(&path).unwrap();
        assert_eq!(kind(RealDisk.lock(&path)), DiskErrorKind::Locked);
        drop(held);
        RealDisk.lock(&path).unwrap();
    }
}
