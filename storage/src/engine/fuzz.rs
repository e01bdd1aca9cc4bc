//! What an engine reads from behind checksums, for fuzzers: the catalog, the meta file, entries moved out of the journal.

use bytes::{BufMut, Bytes};

use super::catalog::{Catalog, CatalogEntry, Listed};
use super::file_store::StoreOptions;
use super::meta::StreamMeta;
use super::persistent::Persistent;
use super::{Form, Replica, StreamId, rescue};
use crate::codec::Compression;
use crate::fuzz::Target;
use crate::store::{Discard, FileStore, Limits};

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "catalog_entry",
        run: catalog_entry,
        seeds: catalog_entries,
    },
    Target {
        name: "catalog",
        run: catalog,
        seeds: catalogs,
    },
    Target {
        name: "stream_meta",
        run: stream_meta,
        seeds: stream_metas,
    },
    Target {
        name: "moved_entries",
        run: moved_entries,
        seeds: files_of_moved_entries,
    },
];

fn listed(number: u64) -> Listed<StoreOptions> {
    Listed {
        account: "$G".to_owned(),
        name: format!("ORDERS-{number}"),
        options: StoreOptions {
            limits: Limits {
                messages_max: Some(number),
                discard: Discard::New,
                ..Limits::default()
            },
            compression: Compression::S2,
            block_bytes: Some(1 << 20),
        },
        form: Form::Plain,
    }
}

fn replica(number: u64) -> Form {
    Form::Replicated(Replica {
        group: number,
        node: number << 32,
    })
}

fn entries() -> Vec<CatalogEntry<StoreOptions>> {
    vec![
        CatalogEntry::Created(StreamId(16), listed(1)),
        CatalogEntry::Created(StreamId(17), listed(2)),
        CatalogEntry::Changed(StreamId(16), listed(3).options),
        CatalogEntry::Created(
            StreamId(18),
            Listed {
                form: replica(7),
                ..listed(4)
            },
        ),
        CatalogEntry::Reformed(StreamId(17), replica(8)),
        CatalogEntry::Removed(StreamId(16)),
        CatalogEntry::Gone(StreamId(16)),
    ]
}

fn catalog_entries() -> Vec<Vec<u8>> {
    let encoded = entries()
        .into_iter()
        .map(|entry| entry.encode::<FileStore>());
    encoded.map(Vec::from).collect()
}

fn catalog_entry(input: &[u8]) {
    let decoded = CatalogEntry::decode::<FileStore>(&mut Bytes::copy_from_slice(input));
    if let Ok(entry) = decoded {
        let mut catalog = Catalog::new();
        catalog.apply(1, entry);
        let _ = catalog.encode::<FileStore>();
    }
}

fn catalogs() -> Vec<Vec<u8>> {
    let mut catalog = Catalog::new();
    let mut found = vec![catalog.encode::<FileStore>().into()];
    for (index, entry) in (1..).zip(entries()) {
        catalog.apply(index, entry);
        found.push(catalog.encode::<FileStore>().into());
    }
    found
}

fn catalog(input: &[u8]) {
    let decoded = Catalog::decode::<FileStore>(1, &mut Bytes::copy_from_slice(input));
    if let Ok(catalog) = decoded {
        let _ = catalog.find("$G", "ORDERS-1");
        let _ = catalog.encode::<FileStore>();
    }
}

/// Behind the header of a meta file and its length.
const META_BODY_AT: usize = 12;

fn stream_metas() -> Vec<Vec<u8>> {
    let meta = StreamMeta {
        id: StreamId(16),
        account: "$G".to_owned(),
        name: "ORDERS".to_owned(),
        options: FileStore::encode_options(&listed(1).options),
    };
    let file = meta.encode();
    let body = file.get(META_BODY_AT..file.len() - 4);
    body.map(<[u8]>::to_vec).into_iter().collect()
}

fn stream_meta(input: &[u8]) {
    if let Ok(meta) = StreamMeta::decode(input) {
        let _ = FileStore::decode_options(&meta.options);
        let _ = meta.encode();
    }
}

fn files_of_moved_entries() -> Vec<Vec<u8>> {
    let mut body = Vec::new();
    for (index, payload) in [(7u64, &b"seven"[..]), (8, b""), (9, b"nine")] {
        body.put_u64_le(index);
        body.put_u32_le(payload.len() as u32);
        body.put_slice(payload);
    }
    vec![body]
}

fn moved_entries(input: &[u8]) {
    let _ = rescue::read_entries(Bytes::copy_from_slice(input));
}
