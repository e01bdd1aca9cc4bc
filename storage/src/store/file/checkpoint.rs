//! The checkpoint file: cuts, one after the other; the last one that is whole counts.
//!
//! The first frame of a file is a whole cut, the ones behind it say what changed. When those have grown
//! well beyond the first, a new file takes the place of the old one in one step.
//!
//! ```text
//!   0   8  magic 0x89 "NCP" 0x0d 0x0a 0x1a 0x0a
//!   8   2  format version, 1
//!  10   1  cipher: 0 none, else as in the key ring
//!  11   5  zero
//!  16   8  stream
//!  24  72  the wrapped data key, zero without a cipher
//!  96   4  crc32 of bytes 0 to 95
//! ```
//! and then frames:
//! ```text
//!   0   4  length of the body as it stands in the file
//!   4   4  number of the frame, from 0
//!   8   4  crc32 of the body, then of the eight bytes before, starting from the crc of the header
//!  12      a cut; with a cipher sealed under the frame's number, with its tag behind it
//! ```
//!
//! # Invariant
//! A frame is durable before anything that it no longer needs is removed. Every start begins a new file,
//! so that a frame that was torn is never written over under the same key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use super::cut::{Cut, Extent};
use super::name::{CHECKPOINT, CHECKPOINT_NEW};
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile, OpenMode};
use crate::entropy::Entropy;
use crate::seal::{
    Cipher, KeyRing, NONCE_BYTES, Sealer, TAG_BYTES, UnwrapError, WRAPPED_KEY_BYTES, WrappedKey,
    sealer,
};

const MAGIC: [u8; 8] = *b"\x89NCP\r\n\x1a\n";
const VERSION: u16 = 1;
pub(super) const HEADER_BYTES: usize = 100;
const CRC_AT: usize = HEADER_BYTES - 4;
const STREAM_AT: usize = 16;
const KEY_AT: usize = STREAM_AT + 8;
const _: () = assert!(KEY_AT + WRAPPED_KEY_BYTES == CRC_AT);
pub(super) const FRAME_HEADER_BYTES: usize = 12;
/// Changes may always grow to this before the file is written anew.
const CHANGES_BYTES_MIN: u64 = 1 << 20;

/// Why a checkpoint could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CheckpointError {
    /// The disk did not answer.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file is not a checkpoint of this stream, or its first cut is damaged.
    #[error("checkpoint {} is damaged", .0.display())]
    Damaged(PathBuf),
    /// Written by a later version of this program.
    #[error("checkpoint {} has format version {version}, this program reads up to {VERSION}", path.display())]
    LaterVersion {
        /// The file.
        path: PathBuf,
        /// The version it says it has.
        version: u16,
    },
    /// It is encrypted and no key was given.
    #[error("checkpoint {} is encrypted and no key was given", .0.display())]
    KeyMissing(PathBuf),
    /// Its data key could not be unwrapped.
    #[error(transparent)]
    Key(#[from] UnwrapError),
}

fn key_context(stream: u64) -> Vec<u8> {
    let mut context = b"checkpoint".to_vec();
    context.put_u64_le(stream);
    context
}

fn nonce(number: u32) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    if let Some(low) = nonce.first_chunk_mut() {
        *low = number.to_le_bytes();
    }
    nonce
}

/// A checkpoint file that is being written.
pub(super) struct CheckpointFile {
    file: Arc<dyn DiskFile>,
    seed: u32,
    sealer: Option<Box<dyn Sealer>>,
    frames: u32,
    length: u64,
    whole_length: u64,
}

impl CheckpointFile {
    /// Writes a whole cut to a new file, which takes the place of the old one. Durable when it returns.
    pub fn create(
        disk: &dyn Disk,
        directory: &Path,
        stream: u64,
        ring: Option<(&KeyRing, Cipher)>,
        entropy: &dyn Entropy,
        cut: &Cut,
    ) -> Result<Self, DiskError> {
        debug_assert_eq!(cut.extent, Extent::Whole);
        let new = directory.join(CHECKPOINT_NEW);
        match disk.remove_file(&new) {
            Ok(()) => {}
            Err(error) if error.kind == DiskErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.put_slice(&MAGIC);
        header.put_u16_le(VERSION);
        header.put_u8(ring.map_or(0, |(_, cipher)| cipher.to_byte()));
        header.put_bytes(0, 5);
        header.put_u64_le(stream);
        let sealer = ring.map(|(ring, cipher)| {
            let context = key_context(stream);
            let key = crate::seal::DataKey::random(entropy);
            let wrapped = ring.wrap(&key, cipher, &context, entropy);
            header.put_slice(&wrapped.encode());
            sealer(cipher, &key)
        });
        header.resize(CRC_AT, 0);
        let seed = crc32fast::hash(&header);
        header.put_u32_le(seed);
        let file = disk.open(&new, OpenMode::CreateNew)?;
        file.write_all_at(&header, 0)?;
        let mut checkpoint = Self {
            file,
            seed,
            sealer,
            frames: 0,
            length: HEADER_BYTES as u64,
            whole_length: 0,
        };
        checkpoint.append(cut)?;
        checkpoint.whole_length = checkpoint.length;
        disk.rename(&new, &directory.join(CHECKPOINT))?;
        disk.sync_directory(directory)?;
        Ok(checkpoint)
    }

    /// Whether the changes have outgrown the whole cut they follow.
    pub fn is_overgrown(&self) -> bool {
        self.length > 2 * self.whole_length + CHANGES_BYTES_MIN
    }

    /// Adds a cut. Durable when it returns.
    pub fn append(&mut self, cut: &Cut) -> Result<(), DiskError> {
        let mut body = cut.encode();
        let mut prefix = Vec::with_capacity(FRAME_HEADER_BYTES);
        let tag_bytes = if self.sealer.is_some() { TAG_BYTES } else { 0 };
        prefix.put_u32_le((body.len() + tag_bytes) as u32);
        prefix.put_u32_le(self.frames);
        if let Some(sealer) = &self.sealer {
            match sealer.seal(&nonce(self.frames), &prefix, &mut body) {
                Ok(tag) => body.extend_from_slice(&tag),
                Err(error) => {
                    return Err(DiskError {
                        operation: "seal",
                        path: self.file.path().to_owned(),
                        kind: DiskErrorKind::Io(error.to_string()),
                    });
                }
            }
        }
        let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + body.len());
        frame.put_slice(&prefix);
        frame.put_u32_le(frame_crc(self.seed, &prefix, &body));
        frame.put_slice(&body);
        self.file.write_all_at(&frame, self.length)?;
        self.file.sync_data()?;
        self.length += frame.len() as u64;
        self.frames += 1;
        Ok(())
    }
}

fn frame_crc(seed: u32, prefix: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(body);
    hasher.update(prefix);
    hasher.finalize()
}

/// Reads the newest cut of a stream's directory; `None` when it has no checkpoint.
pub(super) fn load(
    disk: &dyn Disk,
    directory: &Path,
    stream: u64,
    ring: Option<&KeyRing>,
) -> Result<Option<Cut>, CheckpointError> {
    let path = directory.join(CHECKPOINT);
    let file = match disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let length = file.length()?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    file.read_exact_at(&mut bytes, 0)?;
    decode(&path, bytes.into(), stream, ring).map(Some)
}

/// The newest cut in the bytes of a checkpoint file.
pub(super) fn decode(
    path: &Path,
    mut bytes: Bytes,
    stream: u64,
    ring: Option<&KeyRing>,
) -> Result<Cut, CheckpointError> {
    let damaged = || CheckpointError::Damaged(path.to_owned());
    if bytes.len() < HEADER_BYTES || !bytes.starts_with(&MAGIC) {
        return Err(damaged());
    }
    let header = bytes.split_to(HEADER_BYTES);
    let (fields, crc) = header.split_at(CRC_AT);
    let seed = crc32fast::hash(fields);
    if crc != seed.to_le_bytes() {
        return Err(damaged());
    }
    let mut fields = Bytes::copy_from_slice(fields);
    fields.advance(MAGIC.len());
    let version = fields.get_u16_le();
    if version > VERSION {
        return Err(CheckpointError::LaterVersion {
            path: path.to_owned(),
            version,
        });
    }
    let cipher = fields.get_u8();
    fields.advance(5);
    if fields.get_u64_le() != stream {
        return Err(damaged());
    }
    let opener = match cipher {
        0 => None,
        byte => {
            let cipher = Cipher::from_byte(byte).ok_or_else(damaged)?;
            let ring = ring.ok_or_else(|| CheckpointError::KeyMissing(path.to_owned()))?;
            let wrapped = WrappedKey::decode(&fields).ok_or_else(damaged)?;
            let key = ring.unwrap(&wrapped, &key_context(stream))?;
            Some(sealer(cipher, &key))
        }
    };
    let mut newest: Option<Cut> = None;
    let mut number = 0;
    while let Some(body) = next_frame(&mut bytes, number, seed, opener.as_deref()) {
        let Ok(cut) = Cut::decode(body) else { break };
        match &mut newest {
            None if cut.extent == Extent::Whole => newest = Some(cut),
            None => return Err(damaged()),
            Some(newest) => newest.follow(cut),
        }
        number += 1;
    }
    newest.ok_or_else(damaged)
}

/// The next frame's cut, `None` at the end and where a frame was torn.
fn next_frame(
    bytes: &mut Bytes,
    number: u32,
    seed: u32,
    opener: Option<&dyn Sealer>,
) -> Option<Bytes> {
    let frame = bytes.get(..FRAME_HEADER_BYTES)?;
    let (prefix, crc) = frame.split_at_checked(8)?;
    let (length, found) = prefix.split_first_chunk::<4>()?;
    if found != number.to_le_bytes() {
        return None;
    }
    let end = FRAME_HEADER_BYTES.checked_add(u32::from_le_bytes(*length) as usize)?;
    let body = bytes.get(FRAME_HEADER_BYTES..end)?;
    if crc != frame_crc(seed, prefix, body).to_le_bytes() {
        return None;
    }
    let plain = match opener {
        None => bytes.slice(FRAME_HEADER_BYTES..end),
        Some(opener) => {
            let (sealed, tag) = body.split_last_chunk::<TAG_BYTES>()?;
            let mut plain = sealed.to_vec();
            opener.open(&nonce(number), prefix, &mut plain, tag).ok()?;
            plain.into()
        }
    };
    bytes.advance(end);
    Some(plain)
}

/// The stream that a directory's checkpoint belongs to; `None` when its header is not readable.
pub(super) fn stream_of(disk: &dyn Disk, directory: &Path) -> Result<Option<u64>, DiskError> {
    let file = match disk.open(&directory.join(CHECKPOINT), OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut header = [0; HEADER_BYTES];
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind == DiskErrorKind::UnexpectedEnd => return Ok(None),
        result => result?,
    }
    let (fields, crc) = header.split_at(CRC_AT);
    let stream = fields.get(STREAM_AT..KEY_AT);
    let stream = stream.and_then(|bytes| bytes.try_into().ok());
    let intact = fields.starts_with(&MAGIC) && crc == crc32fast::hash(fields).to_le_bytes();
    Ok(stream.map(u64::from_le_bytes).filter(|_| intact))
}

#[cfg(test)]
mod tests {
    use roaring::RoaringTreemap;

    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::entropy::SeededEntropy;
    use crate::store::Limits;
    use crate::store::ledger::Totals;

    const STREAM: u64 = 9;

    fn cut(extent: Extent, index: u64) -> Cut {
        Cut {
            extent,
            index,
            totals: Totals::default(),
            next_number: 1,
            limits: Limits::default(),
            sealed: Vec::new(),
            open: None,
            retired: Vec::new(),
            dead: RoaringTreemap::from_iter([index]),
            expiries: Vec::new(),
            held: Vec::new(),
            core: Bytes::from_static(b"a secret"),
        }
    }

    fn written(cipher: Option<Cipher>) -> (SimDisk, Option<KeyRing>) {
        let disk = SimDisk::new(1);
        let entropy = SeededEntropy::new(1);
        let root = Path::new("/");
        let ring = cipher.map(|cipher| {
            KeyRing::open(&disk, root, b"passphrase", None, cipher, &entropy).unwrap()
        });
        let keys = ring.as_ref().zip(cipher);
        let whole = cut(Extent::Whole, 1);
        let mut file = CheckpointFile::create(&disk, root, STREAM, keys, &entropy, &whole).unwrap();
        file.append(&cut(Extent::Changes, 2)).unwrap();
        file.append(&cut(Extent::Changes, 3)).unwrap();
        (disk, ring)
    }

    #[test]
    fn the_last_whole_frame_counts_and_a_torn_one_does_not() {
        for cipher in [
            None,
            Some(Cipher::Aes256Gcm),
            Some(Cipher::ChaCha20Poly1305),
        ] {
            let (disk, ring) = written(cipher);
            let root = Path::new("/");
            let load = || load(&disk, root, STREAM, ring.as_ref());
            let newest = load().unwrap().unwrap();
            assert_eq!((newest.index, newest.dead.len()), (3, 3));
            let path = root.join(CHECKPOINT);
            let content = disk.content(&path).unwrap();
            let shows = content.windows(8).any(|window| window == b"a secret");
            assert_eq!(shows, cipher.is_none());
            let mut indexes = std::collections::BTreeSet::new();
            for length in 0..content.len() {
                disk.set_content(&path, &content[..length]);
                match load() {
                    Ok(cut) => {
                        indexes.insert(cut.unwrap().index);
                    }
                    Err(CheckpointError::Damaged(_)) => assert!(indexes.is_empty()),
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(indexes, [1, 2].into());
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (disk, ring) = written(Some(Cipher::Aes256Gcm));
        let path = Path::new("/").join(CHECKPOINT);
        let length = disk.content(&path).unwrap().len() as u64;
        for offset in 0..length {
            disk.flip_bit(&path, offset, (offset % 8) as u8);
            if let Ok(cut) = load(&disk, Path::new("/"), STREAM, ring.as_ref()) {
                assert!(cut.unwrap().index < 3, "offset {offset}");
            }
            disk.flip_bit(&path, offset, (offset % 8) as u8);
        }
    }

    #[test]
    fn the_checkpoint_of_another_stream_or_without_its_key_is_refused() {
        let (disk, ring) = written(Some(Cipher::Aes256Gcm));
        let root = Path::new("/");
        assert!(matches!(
            load(&disk, root, STREAM + 1, ring.as_ref()),
            Err(CheckpointError::Damaged(_))
        ));
        assert!(matches!(
            load(&disk, root, STREAM, None),
            Err(CheckpointError::KeyMissing(_))
        ));
    }
}
