use super::*;

#[test]
fn an_outline_shows_what_a_start_would_find_and_changes_nothing() {
    let disk = SimDisk::new(3);
    let opened = open(&disk);
    let mut small = Driven::create(&opened.engine, "small").unwrap();
    let mut large = Driven::create(&opened.engine, "large").unwrap();
    let gone = Driven::create(&opened.engine, "gone").unwrap();
    for _ in 0..4 {
        assert!(small.append(&opened.engine));
    }
    small.checkpoint(&opened.engine).unwrap();
    for _ in 0..40 {
        assert!(large.append(&opened.engine));
    }
    large.checkpoint(&opened.engine).unwrap();
    for _ in 0..3 {
        assert!(small.append(&opened.engine) && large.append(&opened.engine));
    }
    opened.engine.remove(gone.id).unwrap();

    // While the server runs, and after it was killed.
    for killed in [false, true] {
        if killed {
            disk.crash();
        }
        let changes = disk.changes();
        let outline = StoreOutline::read(&disk, Path::new("/store"), None).unwrap();
        assert_eq!(disk.changes(), changes);
        assert!(!outline.catalog_damaged);
        assert!(
            outline
                .segments
                .iter()
                .all(|segment| segment.content.is_ok())
        );
        let known = outline.streams.iter().filter(|stream| !stream.removing);
        let names: Vec<_> = known
            .clone()
            .map(|stream| stream.name.clone().unwrap())
            .collect();
        assert_eq!(names, ["small", "large"]);
        for stream in known {
            assert_eq!(stream.account.as_deref(), Some("account"));
            let (driven, cut) = match stream.id == small.id {
                true => (&small, 4),
                false => (&large, 40),
            };
            assert_eq!(stream.carried.is_some(), stream.id == small.id);
            assert_eq!(stream.directory, stream_directory(driven.id));
            let after = stream.entries.iter().filter(|(index, _)| *index > cut);
            let expected: Vec<_> = (cut + 1..=driven.index)
                .map(|index| (index, content(driven.id, index)))
                .collect();
            assert!(after.cloned().eq(expected));
            assert_eq!(stream.holes, []);
        }
    }
}

#[test]
fn an_outline_of_a_damaged_journal_shows_what_is_left() {
    let disk = SimDisk::new(4);
    let opened = open(&disk);
    let mut stream = Driven::create(&opened.engine, "large").unwrap();
    for _ in 0..40 {
        assert!(stream.append(&opened.engine));
    }
    stream.checkpoint(&opened.engine).unwrap();
    drop(opened);
    for name in names(&disk, "/store/journal") {
        if name.ends_with(".seg") {
            let path = Path::new("/store/journal").join(name);
            let length = disk.content(&path).unwrap().len() as u64;
            for at in (0..length).step_by(500) {
                disk.flip_bit(&path, at, 1);
            }
        }
    }
    let outline = StoreOutline::read(&disk, Path::new("/store"), None).unwrap();
    assert!(outline.catalog_damaged);
    let [found] = &outline.streams[..] else {
        panic!("{:?}", outline.streams);
    };
    assert_eq!(
        found.name.as_deref(),
        Some("large"),
        "its directory says so"
    );
}
