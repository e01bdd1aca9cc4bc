//! Inputs that are kept in the tree: one directory for each target.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// An input and where it comes from.
pub struct Sample {
    pub origin: String,
    pub bytes: Vec<u8>,
}

fn directory(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(target)
}

/// What is kept for a target, in the order of its names.
pub fn load(target: &str) -> Vec<Sample> {
    let Ok(entries) = std::fs::read_dir(directory(target)) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: PathBuf| Sample {
        bytes: std::fs::read(&path).expect("a corpus file can be read"),
        origin: path.display().to_string(),
    };
    paths.into_iter().map(read).collect()
}

/// Keeps an input under a name that depends on it alone.
pub fn store(target: &str, bytes: &[u8]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let directory = directory(target);
    let path = directory.join(format!("{:016x}", hasher.finish()));
    std::fs::create_dir_all(&directory).expect("the corpus has a directory");
    std::fs::write(&path, bytes).expect("the corpus takes a file");
    path
}
