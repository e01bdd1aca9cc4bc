//! The files of one stream, decrypted and decompressed.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nats_server::jetstream::archive::{ConsumerMeta, FrameReader, StreamMeta, Sums};

use super::keys::{FileKey, MasterKeys};
use super::{META, directories, file_name};

const SUM: &str = "meta.sum";
const KEY: &str = "meta.key";
const STATE: &str = "o.dat";
const MESSAGES: &str = "msgs";
/// Where a purge that was interrupted left the blocks that are to take the place of those there.
const NEW_MESSAGES: &str = "__new_msgs__";
const CONSUMERS: &str = "obs";
const INDEX: &str = "index.db";
/// In front of a block that is compressed: this, the algorithm, and the plain size.
const COMPRESSED: &[u8] = b"cmp";
const S2: u8 = 1;
/// Bytes of the checksum at the end of a block, which stay as they are.
const SUM_BYTES: usize = 8;
/// The largest block that is believed.
const BLOCK_BYTES_MAX: u64 = 512 << 20;

/// A stream's directory.
#[derive(Debug, Clone)]
pub struct StreamDirectory {
    pub account: String,
    pub name: String,
    pub path: PathBuf,
}

/// A consumer's directory.
pub struct ConsumerDirectory {
    pub name: String,
    pub path: PathBuf,
}

/// A block of a stream.
pub struct BlockFile {
    pub number: u64,
    pub path: PathBuf,
    pub bytes: u64,
}

impl StreamDirectory {
    /// What it is configured to be, checked.
    pub fn meta(&self, keys: &MasterKeys) -> Result<StreamMeta> {
        let path = self.path.join(META);
        let stored = read(&path)?;
        check_sum(&self.path, &stored, Sums::named(&self.name))?;
        let bytes = match self.key(keys)? {
            Some(key) => key.open_sealed(&stored).with_context(|| shown(&path))?,
            None => stored,
        };
        let meta = StreamMeta::read(&bytes).with_context(|| shown(&path))?;
        ensure!(
            meta.config.name == self.name,
            "{}: it is of stream {:?}",
            path.display(),
            meta.config.name
        );
        Ok(meta)
    }

    fn key(&self, keys: &MasterKeys) -> Result<Option<FileKey>> {
        open_key(&self.path.join(KEY), keys, &self.account, &self.name)
    }

    fn messages(&self) -> Result<PathBuf> {
        let new = self.path.join(NEW_MESSAGES);
        if new.is_dir() && !blocks_in(&new)?.is_empty() {
            return Ok(new);
        }
        Ok(self.path.join(MESSAGES))
    }

    /// Its blocks, in order.
    pub fn blocks(&self) -> Result<Vec<BlockFile>> {
        blocks_in(&self.messages()?)
    }

    /// A block as plain records. What is wrong with it can be the block's own damage.
    pub fn block(&self, block: &BlockFile, keys: &MasterKeys) -> Result<Vec<u8>> {
        ensure!(block.bytes <= BLOCK_BYTES_MAX, "it is too large");
        let mut bytes = read(&block.path)?;
        let key_path = block.path.with_extension("key");
        let context = format!("{}:{}", self.name, block.number);
        if let Some(key) = open_key(&key_path, keys, &self.account, &context)? {
            key.decrypt_block(&mut bytes)?;
        }
        decompress(bytes)
    }

    /// The index as plain bytes with their checksum; `None` when there is none that can be read.
    pub fn index(&self, keys: &MasterKeys) -> Result<Option<Vec<u8>>> {
        let path = self.messages()?.join(INDEX);
        if !path.is_file() {
            return Ok(None);
        }
        let stored = read(&path)?;
        let Some(key) = self.key(keys)? else {
            return Ok(Some(stored));
        };
        let Some((sealed, sum)) = stored.split_last_chunk::<SUM_BYTES>() else {
            return Ok(None);
        };
        let sums = Sums::named(&self.name);
        if sums.sum(&[sealed]) != *sum {
            return Ok(None);
        }
        let Ok(mut plain) = key.open_sealed(sealed) else {
            return Ok(None);
        };
        let sum = sums.sum(&[&plain]);
        plain.extend_from_slice(&sum);
        Ok(Some(plain))
    }

    /// Its consumers.
    pub fn consumers(&self) -> Result<Vec<ConsumerDirectory>> {
        let path = self.path.join(CONSUMERS);
        if !path.is_dir() {
            return Ok(Vec::new());
        }
        let named = |path: PathBuf| {
            Ok(ConsumerDirectory {
                name: file_name(&path)?,
                path,
            })
        };
        let all: Result<Vec<_>> = directories(&path)?.into_iter().map(named).collect();
        let mut all = all?;
        // What was deleted waits for its removal under a name like this.
        all.retain(|consumer| !consumer.name.starts_with('.'));
        Ok(all)
    }
}

impl ConsumerDirectory {
    /// What it is configured to be, and its state if there is any.
    pub fn read(
        &self,
        stream: &StreamDirectory,
        keys: &MasterKeys,
    ) -> Result<(ConsumerMeta, Option<Vec<u8>>)> {
        let context = format!("{}.{}", stream.name, self.name);
        let key = open_key(&self.path.join(KEY), keys, &stream.account, &context)?;
        let open = |path: &Path| -> Result<Vec<u8>> {
            let stored = read(path)?;
            match &key {
                Some(key) => key.open_sealed(&stored).with_context(|| shown(path)),
                None => Ok(stored),
            }
        };
        let meta_path = self.path.join(META);
        let sums = Sums::of_consumer(&stream.name, &self.name);
        check_sum(&self.path, &read(&meta_path)?, sums)?;
        let meta = ConsumerMeta::read(&open(&meta_path)?).with_context(|| shown(&meta_path))?;
        ensure!(
            meta.name == self.name,
            "{}: it is of consumer {:?}",
            meta_path.display(),
            meta.name
        );
        let state = self.path.join(STATE);
        let state = match state.is_file() {
            true => Some(open(&state)?),
            false => None,
        };
        Ok((meta, state))
    }
}

fn open_key(path: &Path, keys: &MasterKeys, info: &str, context: &str) -> Result<Option<FileKey>> {
    if !path.is_file() {
        return Ok(None);
    }
    let key = keys.open(&read(path)?, info, context);
    key.with_context(|| shown(path)).map(Some)
}

fn check_sum(directory: &Path, meta: &[u8], sums: Sums) -> Result<()> {
    let path = directory.join(SUM);
    let sum = read(&path)?;
    ensure!(
        sum.trim_ascii() == sums.text(meta).as_bytes(),
        "{}: it fails its checksum",
        directory.join(META).display()
    );
    Ok(())
}

fn blocks_in(directory: &Path) -> Result<Vec<BlockFile>> {
    let mut blocks = Vec::new();
    if !directory.is_dir() {
        return Ok(blocks);
    }
    let entries = std::fs::read_dir(directory).with_context(|| shown(directory))?;
    for entry in entries {
        let entry = entry.with_context(|| shown(directory))?;
        let path = entry.path();
        let name = file_name(&path)?;
        let number = name.strip_suffix(".blk").map(str::parse);
        if let Some(Ok(number)) = number {
            let bytes = entry.metadata().with_context(|| shown(&path))?.len();
            blocks.push(BlockFile {
                number,
                path,
                bytes,
            });
        }
    }
    blocks.sort_by_key(|block| block.number);
    Ok(blocks)
}

/// A block that may be compressed as it was before.
fn decompress(bytes: Vec<u8>) -> Result<Vec<u8>> {
    let Some(rest) = bytes.strip_prefix(COMPRESSED) else {
        return Ok(bytes);
    };
    let (algorithm, rest) = rest.split_first().context("its head is cut off")?;
    let (length, rest) = take_number(rest).context("its head is cut off")?;
    match *algorithm {
        0 => return Ok(rest.to_vec()),
        S2 => {}
        other => bail!("it is compressed by an unknown algorithm ({other})"),
    }
    ensure!(length <= BLOCK_BYTES_MAX, "it says that it is too large");
    let parts = rest.split_last_chunk::<SUM_BYTES>();
    let (packed, sum) = parts.context("it is cut off")?;
    let mut plain = Vec::new();
    FrameReader::new(packed)
        .take(BLOCK_BYTES_MAX)
        .read_to_end(&mut plain)
        .context("it cannot be decompressed")?;
    plain.extend_from_slice(sum);
    ensure!(
        plain.len() as u64 == length,
        "it decompresses to {} bytes where it says {length}",
        plain.len()
    );
    Ok(plain)
}

fn take_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(at + 1..)?));
        }
    }
    None
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| shown(path))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nats_server::jetstream::archive::FrameWriter;
    use std::io::Write;

    #[test]
    fn compressed_blocks_are_as_they_were_and_wrong_sizes_are_told() {
        let plain = b"records and records and records, and their sum".to_vec();
        let (content, sum) = plain.split_at(plain.len() - SUM_BYTES);
        let mut writer = FrameWriter::new(Vec::new());
        writer.write_all(content).expect("a vector takes it");
        let packed = writer.finish().expect("a vector takes it");
        let block = |length: u8| [b"cmp\x01", &[length][..], &packed, sum].concat();
        let length = plain.len() as u8;
        assert_eq!(decompress(block(length)).expect("it reads"), plain);
        assert!(decompress(block(length - 1)).is_err());
        assert!(decompress(b"cmp\x07\x01rest of it".to_vec()).is_err());
        assert!(decompress(b"cmp\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec()).is_err());
        assert_eq!(decompress(plain.clone()).expect("it is plain"), plain);
    }
}
