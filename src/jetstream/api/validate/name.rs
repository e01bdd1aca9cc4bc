//! Names of streams and consumers.

use std::collections::BTreeMap;

/// Bytes a name may have.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes a description may have.
pub const DESCRIPTION_BYTES_MAX: usize = 4096;
/// Bytes all keys and values of the metadata may have together.
pub const METADATA_BYTES_MAX: usize = 128 * 1024;

/// Whether `name` can be a token of a subject and a directory entry.
pub fn is_valid_name(name: &str) -> bool {
    !name.is_empty()
        && !name.bytes().any(|byte| {
            matches!(
                byte,
                b' ' | b'\t' | b'\r' | b'\n' | 0x0c | b'.' | b'*' | b'>' | b'\\' | b'/'
            )
        })
}

/// Whether `name` would escape the directory it is put in.
pub fn has_path_separators(name: &str) -> bool {
    name.contains(['\\', '/'])
}

pub(super) fn metadata_bytes(metadata: &BTreeMap<String, String>) -> usize {
    metadata
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum()
}
