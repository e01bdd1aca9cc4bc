//! A store that remembers every entry it was given.

use bytes::{Buf, BufMut, Bytes};
use parking_lot::Mutex;
use std::sync::Arc;

use crate::disk::{DiskError, DiskErrorKind, OpenMode};
use crate::engine::{Frozen, Persistent, Place, RestoreError, Restored};

const NAME: &str = "content";

pub struct Toy {
    pub entries: Vec<Bytes>,
    pub options: String,
    place: Place,
    has_files: Arc<Mutex<bool>>,
}

impl Toy {
    pub fn apply(&mut self, entry: Bytes) {
        self.entries.push(Bytes::copy_from_slice(&entry));
    }
}

fn encode(index: u64, core: &Bytes, entries: &[Bytes]) -> Bytes {
    let mut out = Vec::new();
    out.put_u64_le(index);
    for part in [core].into_iter().chain(entries) {
        out.put_u32_le(part.len() as u32);
        out.put_slice(part);
    }
    let crc = crc32fast::hash(&out);
    out.put_u32_le(crc);
    out.into()
}

fn decode(mut bytes: Bytes) -> Option<(u64, Bytes, Vec<Bytes>)> {
    let crc = bytes.split_off(bytes.len().checked_sub(4)?);
    if crc32fast::hash(&bytes).to_le_bytes()[..] != crc[..] {
        return None;
    }
    let index = bytes.get_u64_le();
    let mut parts = Vec::new();
    while bytes.has_remaining() {
        let length = bytes.get_u32_le() as usize;
        parts.push(bytes.split_to(length));
    }
    let core = parts.remove(0);
    Some((index, core, parts))
}

impl Persistent for Toy {
    type Options = String;

    fn encode_options(options: &String) -> Bytes {
        Bytes::copy_from_slice(options.as_bytes())
    }

    fn decode_options(bytes: &[u8]) -> Option<String> {
        String::from_utf8(bytes.to_vec()).ok()
    }

    fn create(place: Place, options: String) -> Self {
        Self {
            entries: Vec::new(),
            options,
            place,
            has_files: Arc::default(),
        }
    }

    fn restore(
        place: Place,
        options: String,
        carried: Option<(u64, Bytes)>,
    ) -> Result<Restored<Self>, RestoreError> {
        let file = match place.disk.open(&place.directory.join(NAME), OpenMode::Read) {
            Err(error) if error.kind == DiskErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
            Ok(file) => {
                let bytes = file.map(file.length()?)?;
                Some(decode(bytes).ok_or(RestoreError::Damaged(NAME.to_owned()))?)
            }
        };
        let has_files = file.is_some();
        let carried = match carried {
            None => None,
            Some((index, bytes)) => {
                let cut = decode(bytes).ok_or(RestoreError::Damaged("carried".to_owned()))?;
                assert_eq!(cut.0, index);
                Some(cut)
            }
        };
        let cut = file.into_iter().chain(carried).max_by_key(|cut| cut.0);
        let (index, core, entries) = cut.unwrap_or((0, Bytes::from("core 0"), Vec::new()));
        let store = Self {
            entries,
            has_files: Arc::new(Mutex::new(has_files)),
            ..Self::create(place, options)
        };
        Ok(Restored { store, index, core })
    }

    fn freeze(&mut self, index: u64, core: Bytes, carry_bytes_max: usize) -> Frozen {
        let bytes = encode(index, &core, &self.entries);
        if bytes.len() <= carry_bytes_max && !*self.has_files.lock() {
            return Frozen::Carry(bytes);
        }
        *self.has_files.lock() = true;
        let place = self.place.clone();
        Frozen::Files(Box::new(move || write(&place, &bytes)))
    }
}

fn write(place: &Place, bytes: &Bytes) -> Result<(), DiskError> {
    place.create_directory()?;
    let new = place.directory.join("new");
    match place.disk.remove_file(&new) {
        Err(error) if error.kind != DiskErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = place.disk.open(&new, OpenMode::CreateNew)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    place.disk.rename(&new, &place.directory.join(NAME))?;
    place.disk.sync_directory(&place.directory)
}
