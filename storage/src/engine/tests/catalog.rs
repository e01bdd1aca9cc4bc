//! The catalog's bytes, and what is left when they are lost.

use super::super::catalog::{Catalog, CatalogEntry, Listed, MalformedCatalog};
use super::*;
use crate::entropy::Entropy;

fn listed(name: &str) -> Listed<String> {
    Listed {
        account: "A".to_owned(),
        name: name.to_owned(),
        options: "opts".to_owned(),
        form: Form::Plain,
    }
}

#[test]
fn an_entry_written_by_hand_is_read() {
    let mut bytes: &[u8] = b"\x01\x01\x10\0\0\0\0\0\0\0\x01\0A\x03\0abc\x04\0\0\0opts";
    let entry = CatalogEntry::decode::<Toy>(&mut bytes).unwrap();
    let CatalogEntry::Created(id, found) = &entry else {
        panic!("{entry:?}");
    };
    assert_eq!(*id, StreamId(16));
    assert_eq!(
        (&found.account[..], &found.name[..], &found.options[..]),
        ("A", "abc", "opts")
    );
    let again = CatalogEntry::Created(*id, listed("abc")).encode::<Toy>();
    assert_eq!(
        again,
        &b"\x01\x01\x10\0\0\0\0\0\0\0\x01\0A\x03\0abc\x04\0\0\0opts"[..]
    );
    for (operation, expected) in [(3u8, "Removed"), (4, "Gone")] {
        let bytes = [1, operation, 20, 0, 0, 0, 0, 0, 0, 0];
        let entry = CatalogEntry::<String>::decode::<Toy>(&mut &bytes[..]).unwrap();
        assert!(format!("{entry:?}").starts_with(expected));
    }
}

#[test]
fn a_carried_catalog_comes_back_and_its_mutations_never_panic() {
    let mut catalog = Catalog::new();
    for number in 0..5u64 {
        let entry = CatalogEntry::Created(StreamId(16 + number), listed(&format!("s{number}")));
        catalog.apply(number + 1, entry);
    }
    catalog.apply(6, CatalogEntry::Removed(StreamId(17)));
    let bytes = catalog.encode::<Toy>();
    let back = Catalog::decode::<Toy>(6, &mut bytes.clone()).unwrap();
    assert_eq!(back.streams.len(), 4);
    assert_eq!((back.next_stream, back.index), (21, 6));
    assert!(back.removing.contains(&StreamId(17)));
    let entropy = SeededEntropy::new(1);
    for _ in 0..5000 {
        let mut mutated = bytes.to_vec();
        for _ in 0..=entropy.below(2) {
            let at = entropy.below(mutated.len() as u64) as usize;
            mutated[at] = entropy.next_u64() as u8;
        }
        mutated.truncate(entropy.below(bytes.len() as u64 + 1) as usize);
        let _ = Catalog::decode::<Toy>(6, &mut &mutated[..]);
        let _ = CatalogEntry::<String>::decode::<Toy>(&mut &mutated[..]);
    }
    let mut later = bytes.to_vec();
    later[0] = 3;
    assert_eq!(
        Catalog::<String>::decode::<Toy>(6, &mut &later[..]).err(),
        Some(MalformedCatalog::LaterVersion(3))
    );
}

#[test]
fn a_catalog_with_replicas_comes_back_whole_and_by_its_entries() {
    let replica = |group| Form::Replicated(Replica { group, node: 9 });
    let founded = Listed {
        form: replica(3),
        ..listed("founded")
    };
    let entries = [
        CatalogEntry::Created(StreamId(16), listed("plain")),
        CatalogEntry::Created(StreamId(17), founded),
        CatalogEntry::Created(StreamId(18), listed("grown")),
        CatalogEntry::Reformed(StreamId(18), replica(4)),
        CatalogEntry::Created(StreamId(19), listed("shrunk")),
        CatalogEntry::Reformed(StreamId(19), replica(5)),
        CatalogEntry::Reformed(StreamId(19), Form::Plain),
    ];
    let mut catalog = Catalog::new();
    for (index, entry) in (1..).zip(entries) {
        let mut bytes = entry.encode::<Toy>();
        let decoded = CatalogEntry::<String>::decode::<Toy>(&mut bytes).unwrap();
        catalog.apply(index, decoded);
    }
    let back = Catalog::<String>::decode::<Toy>(7, &mut catalog.encode::<Toy>()).unwrap();
    for catalog in [catalog, back] {
        let forms = catalog.streams.values().map(|listed| listed.form);
        let forms: Vec<Form> = forms.collect();
        assert_eq!(forms, [Form::Plain, replica(3), replica(4), Form::Plain]);
    }
}

#[test]
fn a_stream_with_files_survives_the_loss_of_the_catalog() {
    let disk = SimDisk::new(1);
    let opened = open(&disk);
    let mut stream = Driven::create(&opened.engine, "survivor").unwrap();
    for _ in 0..50 {
        stream.append(&opened.engine);
    }
    stream.checkpoint(&opened.engine).unwrap();
    let next = Driven::create(&opened.engine, "next").unwrap();
    drop(opened);
    // The commit in which it was created is the journal's first.
    let segment = Path::new("/store/journal/0000000000000001.seg");
    disk.flip_bit(segment, 4096 + 64 + 20, 0);
    for _ in 0..2 {
        let opened = open(&disk);
        let names: Vec<_> = opened.streams.iter().map(|it| it.name.clone()).collect();
        assert_eq!(names, ["survivor", "next"]);
        let fresh = Driven::create(&opened.engine, "fresh").unwrap();
        assert!(fresh.id > next.id);
        opened.engine.remove(fresh.id).unwrap();
        let survivor = opened.streams.into_iter().next().unwrap();
        assert_eq!(Driven::recovered(survivor).index, 50);
    }
}

#[test]
fn a_directory_that_nobody_knows_is_left_alone() {
    let disk = SimDisk::new(1);
    drop(open(&disk));
    let strange = stream_directory(StreamId(99));
    disk.create_directory(&strange).unwrap();
    let opened = open(&disk);
    assert_eq!(opened.unknown, std::slice::from_ref(&strange));
    assert!(disk.list(&strange).is_ok());
    let stream = Driven::create(&opened.engine, "s").unwrap();
    assert!(stream.id > StreamId(99), "its id is not used again");
}

#[test]
fn a_damaged_meta_file_is_noticed_at_every_byte() {
    let disk = SimDisk::new(1);
    let opened = open(&disk);
    let mut stream = Driven::create(&opened.engine, "s").unwrap();
    for _ in 0..50 {
        stream.append(&opened.engine);
    }
    stream.checkpoint(&opened.engine).unwrap();
    let directory = stream_directory(stream.id);
    let path = directory.join("meta");
    for at in 0..disk.content(&path).unwrap().len() {
        disk.flip_bit(&path, at as u64, 2);
        assert!(read_meta(&disk, &directory).is_err(), "byte {at}");
        disk.flip_bit(&path, at as u64, 2);
    }
}
