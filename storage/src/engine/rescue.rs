//! Log entries of a stream that cannot take a checkpoint, moved out of the journal so that they do not hold it back.
//!
//! A stream is in that state when it could not be restored, or when its checkpoint could not be written. Its entries are
//! copied to a file in its directory; the next start that can restore the stream applies them, and its next checkpoint removes the file.
//!
//! ```text
//!   0  8  magic "NSENTR" 0x1a 0x0a
//!   8  2  format version, 1
//!  10  2  flags: 1 = the body is sealed
//!  12  4  zero
//!  16  8  stream id
//!  24  8  length of the body
//!  32 72  wrapped data key when sealed, else zero; its context is "entries" and the stream id
//! 104 16  tag when sealed, else zero; the nonce is zero, the associated data bytes 0 to 31
//! 120  4  zero
//! 124  4  crc32 of bytes 0 to 123, then of the body
//! 128     the body: entries in order, each: 8 index, 4 length of the payload, the payload
//! ```

use std::path::Path;

use bytes::{Buf, BufMut, Bytes};

use super::persistent::{Place, RestoreError};
use super::{Engine, JOURNAL_NAME, Persistent, StreamId};
use crate::disk::{Disk, DiskError, DiskErrorKind, OpenMode};
use crate::engine::log::Letter;
use crate::journal::{self, OwnerReplay};
use crate::seal::{KeyRing, NONCE_BYTES, TAG_BYTES, WRAPPED_KEY_BYTES, WrappedKey, sealer};

const PREFIX: &str = "entries-";
const NEW_NAME: &str = "entries.new";

const MAGIC: [u8; 8] = *b"NSENTR\x1a\n";
const VERSION: u16 = 1;
const FLAG_SEALED: u16 = 1;
const ASSOCIATED_BYTES: usize = 32;
const TAG_AT: usize = ASSOCIATED_BYTES + WRAPPED_KEY_BYTES;
const CRC_AT: usize = TAG_AT + TAG_BYTES + 4; // + 4 zero
const HEADER_BYTES: usize = CRC_AT + 4;
const _: () = assert!(HEADER_BYTES == 128);

/// Log entries by index, ascending.
pub(super) type Entries = Vec<(u64, Bytes)>;

impl<S: Persistent> Engine<S> {
    /// Whoever owns a stream cannot bring it back: it takes no checkpoints in this run. When the journal needs the room, the stream's entries
    /// are moved to its directory, where the next start finds them.
    pub fn set_offline(&self, id: StreamId) {
        if let Some(activity) = self.activities.lock().streams.get_mut(&id) {
            activity.failed = true;
        }
    }

    /// Moves the entries of a failed stream out of the journal, in the background.
    pub(super) fn rescue_in_background(&self, id: StreamId) {
        let mut activities = self.activities.lock();
        let Some(activity) = activities.streams.get_mut(&id) else {
            return;
        };
        if !activity.failed || activity.rescuing {
            return;
        }
        let (Some(engine), place) = (self.this.upgrade(), activity.place.clone()) else {
            return;
        };
        activity.rescuing = true;
        activities.running += 1;
        drop(activities);
        self.background.spawn(Box::new(move || {
            let rescued = place.map_or(Ok(0), |place| engine.rescue(&place));
            if let Some(activity) = engine.activities.lock().streams.get_mut(&id) {
                activity.rescuing = false;
                if let Ok(upto) = &rescued {
                    activity.rescued_upto = activity.rescued_upto.max(*upto);
                }
            }
            match rescued {
                Ok(0) => {}
                Ok(upto) => {
                    tracing::warn!(stream = %id, upto, "moved log entries of a failed stream out of the journal");
                    engine.log.post(Letter::Release(id.owner(), upto));
                }
                Err(reason) => {
                    tracing::error!(stream = %id, reason, "log entries of a failed stream hold back the journal");
                }
            }
            engine.end_job();
        }));
    }

    /// Copies what the journal has of a stream to a file, and says up to which entry.
    fn rescue(&self, place: &Place) -> Result<u64, String> {
        let journal = self.directory.join(JOURNAL_NAME);
        let mut replay = journal::peek(self.disk.as_ref(), &journal, self.keys.as_deref())
            .map_err(|error| error.to_string())?;
        let replayed = replay.take(place.id.owner());
        let Some(last) = replayed.entries.last().map(|entry| entry.index) else {
            return Ok(0);
        };
        // The journal goes on while it is read: what is not there although no damage explains it was missed.
        if has_unexplained_gap(&replayed) {
            return Err("the journal could not be read in one piece".to_owned());
        }
        let entries = replayed.entries.into_iter();
        let entries: Entries = entries.map(|entry| (entry.index, entry.payload)).collect();
        write(place, last, &entries).map_err(|error| error.to_string())?;
        Ok(last)
    }
}

fn has_unexplained_gap(replayed: &OwnerReplay) -> bool {
    let pairs = replayed.entries.iter().zip(replayed.entries.iter().skip(1));
    pairs.into_iter().any(|(before, after)| {
        let explained =
            |&(first, last): &(u64, u64)| first == before.index + 1 && last + 1 == after.index;
        after.index != before.index + 1 && !replayed.holes.iter().any(explained)
    })
}

fn context(id: StreamId) -> Vec<u8> {
    [&b"entries"[..], &id.0.to_le_bytes()].concat()
}

/// Durable when it returns.
fn write(place: &Place, last: u64, entries: &Entries) -> Result<(), DiskError> {
    place.create_directory()?;
    let disk = place.disk.as_ref();
    let new = place.directory.join(NEW_NAME);
    match disk.remove_file(&new) {
        Err(error) if error.kind != DiskErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.open(&new, OpenMode::CreateNew)?;
    let bytes = encode(place, entries).map_err(|reason| DiskError {
        operation: "seal",
        path: new.clone(),
        kind: DiskErrorKind::Io(reason),
    })?;
    file.write_all_at(&bytes, 0)?;
    file.sync_data()?;
    disk.rename(&new, &place.directory.join(format!("{PREFIX}{last:016x}")))?;
    disk.sync_directory(&place.directory)
}

fn encode(place: &Place, entries: &Entries) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    for (index, payload) in entries {
        body.put_u64_le(*index);
        body.put_u32_le(payload.len() as u32);
        body.put_slice(payload);
    }
    let mut header = Vec::with_capacity(HEADER_BYTES + body.len());
    header.put_slice(&MAGIC);
    header.put_u16_le(VERSION);
    header.put_u16_le(if place.keys.is_some() { FLAG_SEALED } else { 0 });
    header.put_u32_le(0);
    header.put_u64_le(place.id.0);
    header.put_u64_le(body.len() as u64);
    if let Some(keys) = &place.keys {
        let (key, wrapped) = keys.new_data_key(&context(place.id), place.entropy.as_ref());
        let tag = sealer(wrapped.data_cipher, &key)
            .seal(&[0; NONCE_BYTES], &header, &mut body)
            .map_err(|error| error.to_string())?;
        header.put_slice(&wrapped.encode());
        header.put_slice(&tag);
    }
    header.resize(CRC_AT, 0);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header);
    crc.update(&body);
    header.put_u32_le(crc.finalize());
    header.append(&mut body);
    Ok(header)
}

/// The entries that were moved to a stream's directory, ascending, and the last index that a file is named by (0: there is none).
pub(super) fn load(place: &Place) -> Result<(Entries, u64), RestoreError> {
    let mut entries = Entries::new();
    let mut upto = 0;
    for (last, name) in files(place.disk.as_ref(), &place.directory)? {
        let file = place
            .disk
            .open(&place.directory.join(&name), OpenMode::Read)?;
        let mut bytes = vec![0; file.length()? as usize];
        file.read_exact_at(&mut bytes, 0)?;
        // A later file begins where the journal did then.
        follow(
            &mut entries,
            decode(place.id, place.keys.as_deref(), &name, bytes)?,
        );
        upto = upto.max(last);
    }
    Ok((entries, upto))
}

/// Appends entries that may repeat, or take back, what is there already.
pub(super) fn follow(entries: &mut Entries, later: impl IntoIterator<Item = (u64, Bytes)>) {
    for (index, payload) in later {
        while entries.last().is_some_and(|(before, _)| *before >= index) {
            entries.pop();
        }
        entries.push((index, payload));
    }
}

fn decode(
    id: StreamId,
    keys: Option<&KeyRing>,
    name: &str,
    mut bytes: Vec<u8>,
) -> Result<Entries, RestoreError> {
    let damaged = || RestoreError::Damaged(format!("{name} is damaged"));
    if !is_intact(&bytes) {
        return Err(damaged());
    }
    let (header, body) = bytes
        .split_at_mut_checked(HEADER_BYTES)
        .ok_or_else(damaged)?;
    let (checked, _) = header.split_at(CRC_AT);
    let mut fields = checked.get(MAGIC.len()..).unwrap_or_default();
    let version = fields.get_u16_le();
    if version > VERSION {
        return Err(RestoreError::LaterVersion(format!(
            "{name} has format version {version}, this program reads up to {VERSION}"
        )));
    }
    let (flags, zero) = (fields.get_u16_le(), fields.get_u32_le());
    let (stream, length) = (fields.get_u64_le(), fields.get_u64_le());
    if flags > FLAG_SEALED || zero != 0 || stream != id.0 || length != body.len() as u64 {
        return Err(damaged());
    }
    if flags == FLAG_SEALED {
        open_body(id, keys, name, checked, body)?;
    }
    let rest = Bytes::from(bytes).split_off(HEADER_BYTES);
    read_entries(rest).ok_or_else(damaged)
}

/// The entries that follow a file's header; `None` when the last one is cut short.
pub(super) fn read_entries(mut rest: Bytes) -> Option<Entries> {
    let mut entries = Entries::new();
    while rest.has_remaining() {
        let index = rest.try_get_u64_le().ok()?;
        let length = rest.try_get_u32_le().ok()? as usize;
        if rest.len() < length {
            return None;
        }
        entries.push((index, rest.split_to(length)));
    }
    Some(entries)
}

fn is_intact(bytes: &[u8]) -> bool {
    let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
        return false;
    };
    let (checked, crc) = header.split_at(CRC_AT);
    let mut expected = crc32fast::Hasher::new();
    expected.update(checked);
    expected.update(body);
    checked.starts_with(&MAGIC) && crc == expected.finalize().to_le_bytes()
}

/// A file of entries that were moved out of the journal, as tools see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RescuedEntries {
    /// Its name in the stream's directory.
    pub name: String,
    /// The last entry in it.
    pub upto: u64,
    /// Its length.
    pub length: u64,
    /// Whether its checksum holds.
    pub intact: bool,
    /// What is in it; nothing when it cannot be read.
    pub(super) entries: Entries,
}

/// What a stream's directory has of such files.
pub(super) fn inspect(
    disk: &dyn Disk,
    directory: &Path,
    id: StreamId,
    keys: Option<&KeyRing>,
) -> Result<Vec<RescuedEntries>, DiskError> {
    let inspect = |(upto, name): (u64, String)| {
        let file = disk.open(&directory.join(&name), OpenMode::Read)?;
        let length = file.length()?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(RescuedEntries {
            intact: is_intact(&bytes),
            entries: decode(id, keys, &name, bytes).unwrap_or_default(),
            name,
            upto,
            length,
        })
    };
    files(disk, directory)?.into_iter().map(inspect).collect()
}

fn open_body(
    id: StreamId,
    keys: Option<&KeyRing>,
    name: &str,
    header: &[u8],
    body: &mut [u8],
) -> Result<(), RestoreError> {
    let damaged = || RestoreError::Damaged(format!("{name} is damaged"));
    let wrapped = header.get(ASSOCIATED_BYTES..).and_then(WrappedKey::decode);
    let wrapped = wrapped.ok_or_else(damaged)?;
    let tag = header.get(TAG_AT..).and_then(<[u8]>::first_chunk);
    let tag = tag.ok_or_else(damaged)?;
    let keys =
        keys.ok_or_else(|| RestoreError::Key(format!("{name} is encrypted and no key was given")))?;
    let key = keys
        .unwrap(&wrapped, &context(id))
        .map_err(|error| RestoreError::Key(format!("{name}: {error}")))?;
    let associated = header.get(..ASSOCIATED_BYTES).unwrap_or_default();
    sealer(wrapped.data_cipher, &key)
        .open(&[0; NONCE_BYTES], associated, body, tag)
        .map_err(|_| damaged())
}

/// Removes the files: a durable checkpoint covers what is in them.
pub(super) fn remove(disk: &dyn Disk, directory: &Path) -> Result<(), DiskError> {
    for (_, name) in files(disk, directory)? {
        disk.remove_file(&directory.join(name))?;
    }
    Ok(())
}

/// By the last entry in them, ascending.
fn files(disk: &dyn Disk, directory: &Path) -> Result<Vec<(u64, String)>, DiskError> {
    let entries = match disk.list(directory) {
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files: Vec<(u64, String)> = entries
        .into_iter()
        .filter_map(|entry| {
            let last = u64::from_str_radix(entry.name.strip_prefix(PREFIX)?, 16).ok()?;
            Some((last, entry.name))
        })
        .collect();
    files.sort();
    Ok(files)
}
