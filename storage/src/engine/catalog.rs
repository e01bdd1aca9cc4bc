//! Which streams there are. A change is an entry of owner 0; now and then the whole catalog is carried instead.
//!
//! An entry:
//!
//! ```text
//! 0  1  version: 1, or 2 from operation 5 on
//! 1  1  operation: 1 created, 2 changed, 3 removed, 4 gone, 5 reformed, 6 created as a replica
//! 2  8  stream id
//! created: 2 length of the account, the account, 2 length of the name, the name, 4 length of the options, the options
//! changed: 4 length of the options, the options
//! reformed: 1 form: 0 plain, 1 replicated; replicated: 8 group, 8 node
//! created as a replica: 8 group, 8 node, and then as in a created entry
//! ```
//!
//! The whole:
//!
//! ```text
//! 0  1  version: 1, or 2 when there are replicas
//! 1  8  the next stream id
//! 9  4  streams, each: 8 id, and then as in a created entry
//!    4  streams that are being removed, each: 8 id
//!    4  version 2: replicas among the streams, each: 8 id, 8 group, 8 node
//! ```
//!
//! # Invariant
//! A stream is *removed* before the first of its files is, and *gone* only after the last one is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::{Buf, BufMut, Bytes, TryGetError};

use super::persistent::Persistent;
use super::{Form, Replica, StreamId};

const VERSION: u8 = 1;
/// Of what tells of replicas.
const VERSION_REPLICAS: u8 = 2;
const CREATED: u8 = 1;
const CHANGED: u8 = 2;
const REMOVED: u8 = 3;
const GONE: u8 = 4;
const REFORMED: u8 = 5;
const CREATED_REPLICA: u8 = 6;

const PLAIN: u8 = 0;
const REPLICATED: u8 = 1;

/// Ids below this one are for the server's own use.
pub(super) const FIRST_STREAM: u64 = 16;

/// A stream as the catalog knows it.
#[derive(Debug, Clone)]
pub(super) struct Listed<O> {
    pub account: String,
    pub name: String,
    pub options: O,
    pub form: Form,
}

impl<O> Listed<O> {
    fn key(&self) -> (String, String) {
        (self.account.clone(), self.name.clone())
    }
}

/// All streams.
#[derive(Debug, Clone)]
pub(super) struct Catalog<O> {
    pub streams: BTreeMap<StreamId, Listed<O>>,
    pub removing: BTreeSet<StreamId>,
    pub next_stream: u64,
    /// Of the last entry.
    pub index: u64,
    /// By account and name.
    names: HashMap<(String, String), StreamId>,
}

/// One change.
#[derive(Debug, Clone)]
pub(super) enum CatalogEntry<O> {
    Created(StreamId, Listed<O>),
    Changed(StreamId, O),
    Reformed(StreamId, Form),
    Removed(StreamId),
    Gone(StreamId),
}

/// The bytes are not of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MalformedCatalog {
    Damaged,
    LaterVersion(u8),
}

impl From<TryGetError> for MalformedCatalog {
    fn from(_: TryGetError) -> Self {
        Self::Damaged
    }
}

impl<O: Clone> Catalog<O> {
    pub fn new() -> Self {
        Self {
            streams: BTreeMap::new(),
            removing: BTreeSet::new(),
            next_stream: FIRST_STREAM,
            index: 0,
            names: HashMap::new(),
        }
    }

    /// Lists a stream; one that is listed already gets another name.
    pub fn insert(&mut self, id: StreamId, listed: Listed<O>) {
        if let Some(before) = self.streams.get(&id).map(Listed::key)
            && self.names.get(&before) == Some(&id)
        {
            self.names.remove(&before);
        }
        self.next_stream = self.next_stream.max(id.0.saturating_add(1));
        self.names.insert(listed.key(), id);
        self.streams.insert(id, listed);
    }

    pub fn apply(&mut self, index: u64, entry: CatalogEntry<O>) {
        self.index = index;
        match entry {
            CatalogEntry::Created(id, listed) => self.insert(id, listed),
            CatalogEntry::Changed(id, options) => {
                if let Some(listed) = self.streams.get_mut(&id) {
                    listed.options = options;
                }
            }
            CatalogEntry::Reformed(id, form) => {
                if let Some(listed) = self.streams.get_mut(&id) {
                    listed.form = form;
                }
            }
            CatalogEntry::Removed(id) => {
                if let Some(listed) = self.streams.remove(&id) {
                    self.names.remove(&listed.key());
                }
                self.removing.insert(id);
            }
            CatalogEntry::Gone(id) => {
                self.removing.remove(&id);
            }
        }
    }

    pub fn find(&self, account: &str, name: &str) -> Option<StreamId> {
        let key = (account.to_owned(), name.to_owned());
        self.names.get(&key).copied()
    }

    pub fn encode<S: Persistent<Options = O>>(&self) -> Bytes {
        let mut out = Vec::with_capacity(64 + self.streams.len() * 128);
        let replicas: Vec<(StreamId, Replica)> = self
            .streams
            .iter()
            .filter_map(|(id, listed)| Some((*id, listed.form.replica()?)))
            .collect();
        out.put_u8(match replicas.is_empty() {
            true => VERSION,
            false => VERSION_REPLICAS,
        });
        out.put_u64_le(self.next_stream);
        out.put_u32_le(self.streams.len() as u32);
        for (id, listed) in &self.streams {
            out.put_u64_le(id.0);
            put_listed::<S>(&mut out, listed);
        }
        out.put_u32_le(self.removing.len() as u32);
        for id in &self.removing {
            out.put_u64_le(id.0);
        }
        if !replicas.is_empty() {
            out.put_u32_le(replicas.len() as u32);
            for (id, replica) in replicas {
                out.put_u64_le(id.0);
                put_replica(&mut out, replica);
            }
        }
        out.into()
    }

    pub fn decode<S: Persistent<Options = O>>(
        index: u64,
        bytes: &mut impl Buf,
    ) -> Result<Self, MalformedCatalog> {
        Self::decode_with(index, bytes, S::decode_options)
    }

    pub fn decode_with(
        index: u64,
        bytes: &mut impl Buf,
        options: fn(&[u8]) -> Option<O>,
    ) -> Result<Self, MalformedCatalog> {
        let version = get_version(bytes)?;
        let mut catalog = Self {
            index,
            next_stream: bytes.try_get_u64_le()?,
            ..Self::new()
        };
        for _ in 0..bytes.try_get_u32_le()? {
            let id = StreamId(bytes.try_get_u64_le()?);
            let listed = get_listed(bytes, options)?;
            catalog.insert(id, listed);
        }
        for _ in 0..bytes.try_get_u32_le()? {
            catalog.removing.insert(StreamId(bytes.try_get_u64_le()?));
        }
        let replicas = match version {
            VERSION => 0,
            _ => bytes.try_get_u32_le()?,
        };
        for _ in 0..replicas {
            let id = StreamId(bytes.try_get_u64_le()?);
            let form = Form::Replicated(get_replica(bytes)?);
            let listed = catalog.streams.get_mut(&id);
            listed.ok_or(MalformedCatalog::Damaged)?.form = form;
        }
        all_read(bytes).map(|()| catalog)
    }
}

impl<O: Clone> CatalogEntry<O> {
    pub fn encode<S: Persistent<Options = O>>(&self) -> Bytes {
        let mut out = Vec::new();
        let (operation, id) = match self {
            Self::Created(id, listed) if listed.form.is_replicated() => (CREATED_REPLICA, id),
            Self::Created(id, _) => (CREATED, id),
            Self::Reformed(id, _) => (REFORMED, id),
            Self::Changed(id, _) => (CHANGED, id),
            Self::Removed(id) => (REMOVED, id),
            Self::Gone(id) => (GONE, id),
        };
        out.put_u8(match operation {
            REFORMED | CREATED_REPLICA => VERSION_REPLICAS,
            _ => VERSION,
        });
        out.put_u8(operation);
        out.put_u64_le(id.0);
        match self {
            Self::Created(_, listed) => {
                if let Some(replica) = listed.form.replica() {
                    put_replica(&mut out, replica);
                }
                put_listed::<S>(&mut out, listed);
            }
            Self::Reformed(_, Form::Plain) => out.put_u8(PLAIN),
            Self::Reformed(_, Form::Replicated(replica)) => {
                out.put_u8(REPLICATED);
                put_replica(&mut out, *replica);
            }
            Self::Changed(_, options) => put_long(&mut out, &S::encode_options(options)),
            Self::Removed(_) | Self::Gone(_) => {}
        }
        out.into()
    }

    pub fn decode<S: Persistent<Options = O>>(
        bytes: &mut impl Buf,
    ) -> Result<Self, MalformedCatalog> {
        Self::decode_with(bytes, S::decode_options)
    }

    pub fn decode_with(
        bytes: &mut impl Buf,
        options: fn(&[u8]) -> Option<O>,
    ) -> Result<Self, MalformedCatalog> {
        let version = get_version(bytes)?;
        let operation = bytes.try_get_u8()?;
        if (version == VERSION_REPLICAS) != matches!(operation, REFORMED | CREATED_REPLICA) {
            return Err(MalformedCatalog::Damaged);
        }
        let id = StreamId(bytes.try_get_u64_le()?);
        let entry = match operation {
            CREATED => Self::Created(id, get_listed(bytes, options)?),
            CHANGED => Self::Changed(id, get_options(bytes, options)?),
            REFORMED => Self::Reformed(id, get_form(bytes)?),
            CREATED_REPLICA => {
                let form = Form::Replicated(get_replica(bytes)?);
                let listed = get_listed(bytes, options)?;
                Self::Created(id, Listed { form, ..listed })
            }
            REMOVED => Self::Removed(id),
            GONE => Self::Gone(id),
            _ => return Err(MalformedCatalog::Damaged),
        };
        all_read(bytes).map(|()| entry)
    }
}

fn get_version(bytes: &mut impl Buf) -> Result<u8, MalformedCatalog> {
    match bytes.try_get_u8()? {
        version @ (VERSION | VERSION_REPLICAS) => Ok(version),
        0 => Err(MalformedCatalog::Damaged),
        later => Err(MalformedCatalog::LaterVersion(later)),
    }
}

fn all_read(bytes: &impl Buf) -> Result<(), MalformedCatalog> {
    match bytes.has_remaining() {
        true => Err(MalformedCatalog::Damaged),
        false => Ok(()),
    }
}

fn put_listed<S: Persistent>(out: &mut Vec<u8>, listed: &Listed<S::Options>) {
    put_name(out, &listed.account);
    put_name(out, &listed.name);
    put_long(out, &S::encode_options(&listed.options));
}

fn get_listed<O>(
    bytes: &mut impl Buf,
    options: fn(&[u8]) -> Option<O>,
) -> Result<Listed<O>, MalformedCatalog> {
    Ok(Listed {
        account: get_name(bytes)?,
        name: get_name(bytes)?,
        options: get_options(bytes, options)?,
        form: Form::Plain,
    })
}

fn put_replica(out: &mut Vec<u8>, replica: Replica) {
    out.put_u64_le(replica.group);
    out.put_u64_le(replica.node);
}

fn get_replica(bytes: &mut impl Buf) -> Result<Replica, MalformedCatalog> {
    Ok(Replica {
        group: bytes.try_get_u64_le()?,
        node: bytes.try_get_u64_le()?,
    })
}

fn get_form(bytes: &mut impl Buf) -> Result<Form, MalformedCatalog> {
    match bytes.try_get_u8()? {
        PLAIN => Ok(Form::Plain),
        REPLICATED => Ok(Form::Replicated(get_replica(bytes)?)),
        _ => Err(MalformedCatalog::Damaged),
    }
}

fn get_options<O>(
    bytes: &mut impl Buf,
    decode: fn(&[u8]) -> Option<O>,
) -> Result<O, MalformedCatalog> {
    let length = bytes.try_get_u32_le()? as usize;
    let options = take(bytes, length)?;
    decode(&options).ok_or(MalformedCatalog::Damaged)
}

/// Names are checked to be short before they get here.
pub(super) fn put_name(out: &mut Vec<u8>, name: &str) {
    out.put_u16_le(name.len() as u16);
    out.put_slice(name.as_bytes());
}

pub(super) fn get_name(bytes: &mut impl Buf) -> Result<String, MalformedCatalog> {
    let length = usize::from(bytes.try_get_u16_le()?);
    let name = take(bytes, length)?;
    String::from_utf8(name.to_vec()).map_err(|_| MalformedCatalog::Damaged)
}

pub(super) fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

pub(super) fn take(bytes: &mut impl Buf, length: usize) -> Result<Bytes, MalformedCatalog> {
    match bytes.remaining() >= length {
        true => Ok(bytes.copy_to_bytes(length)),
        false => Err(MalformedCatalog::Damaged),
    }
}
