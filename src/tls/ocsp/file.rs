//! Files that answers are kept in. Whoever reads one finds all of it, also after a loss of power: it is written and synced under another name first.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

/// Puts these bytes in the place of what the file holds. Makes its folder.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // The same certificate may be kept fresh for several listeners, and by other servers too: nobody writes into what another one is about to rename.
    let mut unique = [0; 8];
    getrandom::fill(&mut unique)?;
    let mut name = OsString::from(path.file_name().unwrap_or_default());
    name.push(format!(".{:016x}.new", u64::from_le_bytes(unique)));
    let unfinished = path.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&unfinished)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&unfinished, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_may_write_the_same_file_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below").join("answer");
        std::thread::scope(|scope| {
            for letter in b'a'..=b'h' {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        replace(path, &[letter; 10_000]).unwrap();
                        let read = std::fs::read(path).unwrap();
                        assert_eq!(read.len(), 10_000);
                        assert!(read.iter().all(|byte| *byte == read[0]));
                    }
                });
            }
        });
        let left = std::fs::read_dir(path.parent().unwrap()).unwrap();
        assert_eq!(left.count(), 1, "nothing unfinished stays");
    }
}
