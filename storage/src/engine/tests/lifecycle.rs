//! Opening, checkpoints, removal, pressure.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::disk::sim::Fault;
use crate::disk::{DiskErrorKind, OpenMode, RealDisk};
use crate::entropy::SystemEntropy;
use crate::journal::{Frame, FrameKind};
use crate::seal::Cipher;

#[test]
fn a_directory_has_one_engine_at_a_time() {
    let disk = SimDisk::new(1);
    let first = open(&disk);
    assert!(matches!(
        try_open(&disk, options()),
        Err(OpenError::InUse(_))
    ));
    drop(first);
    open(&disk);
}

#[test]
fn a_store_of_the_reference_is_refused_and_not_touched() {
    for root in ["/store", "/store/jetstream"] {
        let disk = SimDisk::new(1);
        let mut path = PathBuf::new();
        for part in Path::new(root).join("$G/streams/ORDERS").components() {
            path.push(part);
            if path != Path::new("/") {
                disk.create_directory(&path).unwrap();
            }
        }
        let meta = path.join("meta.inf");
        disk.open(&meta, OpenMode::CreateNew).unwrap();
        let changes = disk.changes();
        let Err(error) = try_open(&disk, options()) else {
            panic!("opened");
        };
        assert!(matches!(&error, OpenError::Foreign(found) if *found == path));
        assert!(error.to_string().contains("nats-tool filestore import"));
        assert!(
            disk.changes() - changes <= 1,
            "at most the parent was synced"
        );
    }
}

#[test]
fn a_small_stream_has_no_files_and_a_large_one_has() {
    let disk = SimDisk::new(1);
    let opened = open(&disk);
    let mut small = Driven::create(&opened.engine, "small").unwrap();
    let mut large = Driven::create(&opened.engine, "large").unwrap();
    small.append(&opened.engine);
    for _ in 0..50 {
        large.append(&opened.engine);
    }
    small.checkpoint(&opened.engine).unwrap();
    large.checkpoint(&opened.engine).unwrap();
    assert_eq!(names(&disk, "/store/streams"), [large.id.directory_name()]);
    let meta = read_meta(&disk, &stream_directory(large.id)).unwrap();
    assert_eq!(
        (meta.id, &meta.name[..], &meta.account[..]),
        (large.id, "large", "account")
    );
    drop(opened);
    disk.crash();
    let opened = open(&disk);
    for recovered in opened.streams {
        let stored = recovered.content.as_ref().unwrap();
        assert!(stored.entries.is_empty(), "checkpoints cover everything");
        let stream = Driven::recovered(recovered);
        assert!([1, 50].contains(&stream.index));
    }
}

#[test]
fn many_small_streams_get_files_when_together_they_are_too_much() {
    let disk = SimDisk::new(1);
    let options = EngineOptions {
        carried_total_bytes_max: 500,
        ..options()
    };
    let opened = try_open(&disk, options).unwrap();
    for number in 0..40 {
        let mut stream = Driven::create(&opened.engine, &format!("{number}")).unwrap();
        stream.append(&opened.engine);
        stream.checkpoint(&opened.engine).unwrap();
    }
    let with_files = names(&disk, "/store/streams").len();
    assert!((20..40).contains(&with_files), "{with_files}");
}

#[test]
fn pressure_is_relieved_by_checkpoints_and_the_journal_stays_small() {
    let disk = SimDisk::new(1);
    let opened = open(&disk);
    let engine = &opened.engine;
    let mut idle = Driven::create(engine, "idle and small").unwrap();
    idle.append(engine);
    let mut busy = Driven::create(engine, "busy").unwrap();
    let wanted = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&wanted);
    engine.set_pressure_listener(move |pressure| *heard.lock() = pressure.owners.clone());
    for _ in 0..2000 {
        assert!(busy.append(engine));
        let owners = std::mem::take(&mut *wanted.lock());
        for owner in owners {
            for stream in [&mut idle, &mut busy] {
                if stream.id.owner() == owner {
                    stream.checkpoint(engine).unwrap();
                }
            }
        }
        assert!(engine.pressure_level() < PressureLevel::Hard);
    }
    drop(opened);
    disk.crash();
    let lengths: Vec<u64> = open(&disk)
        .streams
        .into_iter()
        .map(|recovered| Driven::recovered(recovered).index)
        .collect();
    assert_eq!(lengths, [1, 2000]);
}

#[test]
fn a_removed_stream_leaves_nothing_behind() {
    let disk = SimDisk::new(1);
    let opened = open(&disk);
    let mut stream = Driven::create(&opened.engine, "gone").unwrap();
    for _ in 0..50 {
        stream.append(&opened.engine);
    }
    stream.checkpoint(&opened.engine).unwrap();
    assert_eq!(names(&disk, "/store/streams").len(), 1);
    opened.engine.remove(stream.id).unwrap();
    assert!(names(&disk, "/store/streams").is_empty());
    assert!(matches!(
        opened.engine.remove(stream.id),
        Err(RemoveError::Unknown)
    ));
    Driven::create(&opened.engine, "gone").unwrap();
    drop(opened);
    disk.crash();
    let opened = open(&disk);
    assert_eq!(opened.streams.len(), 1);
    assert!(opened.others.is_empty());
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_reported_and_loses_nothing() {
    let disk = SimDisk::new(1);
    let opened = open(&disk);
    let mut stream = Driven::create(&opened.engine, "s").unwrap();
    for _ in 0..50 {
        stream.append(&opened.engine);
    }
    let failures = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&failures);
    let id = stream.id;
    opened.engine.set_failure_listener(move |failed, _| {
        assert_eq!(failed, id);
        counted.fetch_add(1, Ordering::Relaxed);
    });
    disk.fail_change(disk.changes() + 7, Fault::Error);
    stream.checkpoint(&opened.engine).unwrap();
    assert_eq!(failures.load(Ordering::Relaxed), 1);
    opened.engine.wait_until_idle();
    drop(opened);
    disk.crash();
    let recovered = open(&disk).streams.remove(0);
    assert_eq!(Driven::recovered(recovered).index, 50);
}

#[test]
fn a_damaged_stream_is_offline_and_the_others_are_not() {
    let disk = SimDisk::new(1);
    let opened = open(&disk);
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        let mut stream = Driven::create(&opened.engine, name).unwrap();
        for _ in 0..50 {
            stream.append(&opened.engine);
        }
        stream.checkpoint(&opened.engine).unwrap();
        ids.push(stream.id);
    }
    drop(opened);
    let file = stream_directory(ids[0]).join("content");
    disk.flip_bit(&file, 30, 1);
    let before = disk.content(&file).unwrap();
    let opened = open(&disk);
    assert!(matches!(
        opened.streams[0].content,
        Err(RestoreError::Damaged(_))
    ));
    assert!(opened.streams[1].content.is_ok());
    assert_eq!(disk.content(&file).unwrap(), before);
}

#[test]
fn options_can_be_changed_and_the_change_is_durable() {
    let disk = SimDisk::new(1);
    let opened = open(&disk);
    let stream = Driven::create(&opened.engine, "s").unwrap();
    opened
        .engine
        .change(stream.id, "changed".to_owned())
        .unwrap();
    drop(opened);
    disk.crash();
    let recovered = open(&disk).streams.remove(0);
    assert_eq!(recovered.options, "changed");
    assert_eq!(recovered.content.unwrap().store.options, "changed");
}

#[test]
fn an_encrypted_store_opens_with_its_passphrase_only() {
    let disk = SimDisk::new(1);
    let with = |passphrase: &str| EngineOptions {
        encryption: Some(EncryptionOptions {
            passphrase: passphrase.as_bytes().to_vec(),
            previous: None,
            cipher: Cipher::ChaCha20Poly1305,
        }),
        ..options()
    };
    let opened = try_open(&disk, with("right")).unwrap();
    Driven::create(&opened.engine, "s")
        .unwrap()
        .append(&opened.engine);
    drop(opened);
    assert!(matches!(
        try_open(&disk, with("wrong")),
        Err(OpenError::Key(_))
    ));
    assert!(matches!(
        try_open(&disk, options()),
        Err(OpenError::Journal(_))
    ));
    let recovered = try_open(&disk, with("right")).unwrap().streams.remove(0);
    assert_eq!(Driven::recovered(recovered).index, 1);
}

#[test]
fn an_engine_on_threads_keeps_what_it_acknowledged() {
    let root = tempfile::tempdir().unwrap();
    let open = || {
        let options = EngineOptions {
            directory: root.path().join("store"),
            threads: Threads::Own(2),
            ..options()
        };
        Engine::<Toy>::open(Arc::new(RealDisk), options, Arc::new(SystemEntropy)).unwrap()
    };
    let opened = open();
    let (id, mut toy) = opened
        .engine
        .create("account", "s", "s".to_owned())
        .unwrap();
    let recorder = Arc::new(Recorder::default());
    let sink: Arc<dyn CommitSink> = recorder.clone();
    let count = || recorder.commits.lock().len();
    for index in 1..=300 {
        let entry = LogEntry {
            stream: id,
            index,
            payload: content(id, index).into(),
            token: index,
        };
        opened.engine.submit([entry], &sink).unwrap();
        while count() < index as usize {
            std::thread::yield_now();
        }
        toy.apply(content(id, index));
        if index % 50 == 0 {
            let core = Bytes::from(format!("core {index}"));
            opened.engine.checkpoint(id, &mut toy, index, core).unwrap();
        }
    }
    opened.engine.close();
    drop(opened);
    let recovered = open().streams.remove(0);
    assert_eq!(Driven::recovered(recovered).index, 300);
}

#[test]
fn a_missing_parent_directory_is_an_error_and_not_a_guess() {
    let disk = SimDisk::new(1);
    let options = EngineOptions {
        directory: PathBuf::from("/missing/store"),
        ..options()
    };
    let opened = try_open(&disk, options);
    assert!(matches!(
        opened.err(),
        Some(OpenError::Disk(error)) if error.kind == DiskErrorKind::NotFound
    ));
}

#[test]
fn a_stream_that_is_offline_does_not_hold_back_the_journal_and_loses_nothing() {
    for encrypted in [false, true] {
        let disk = SimDisk::new(1);
        let options = || EngineOptions {
            encryption: encrypted.then(|| EncryptionOptions {
                passphrase: b"secret".to_vec(),
                previous: None,
                cipher: Cipher::Aes256Gcm,
            }),
            ..options()
        };
        let opened = try_open(&disk, options()).unwrap();
        let mut stream = Driven::create(&opened.engine, "damaged").unwrap();
        for _ in 0..50 {
            stream.append(&opened.engine);
        }
        stream.checkpoint(&opened.engine).unwrap();
        for _ in 0..20 {
            stream.append(&opened.engine);
        }
        drop(opened);
        let file = stream_directory(stream.id).join("content");
        disk.flip_bit(&file, 30, 1);

        let opened = try_open(&disk, options()).unwrap();
        assert!(opened.streams[0].content.is_err());
        let mut busy = Driven::create(&opened.engine, "busy").unwrap();
        for _ in 0..3000 {
            assert!(busy.append(&opened.engine));
            if opened.engine.pressure_level() > PressureLevel::None {
                busy.checkpoint(&opened.engine).unwrap();
            }
            assert!(opened.engine.pressure_level() < PressureLevel::Hard);
        }
        drop(opened);
        disk.crash();

        disk.flip_bit(&file, 30, 1);
        let mut opened = try_open(&disk, options()).unwrap();
        let mut repaired = Driven::recovered(opened.streams.remove(0));
        assert_eq!(repaired.index, 70);
        let files = |disk: &SimDisk| {
            let names = names(disk, stream_directory(stream.id).to_str().unwrap());
            names
                .iter()
                .filter(|name| name.starts_with("entries-"))
                .count()
        };
        assert_eq!(files(&disk), 1);
        repaired.checkpoint(&opened.engine).unwrap();
        assert_eq!(files(&disk), 0);
    }
}

#[test]
fn a_damaged_file_of_rescued_entries_is_noticed_at_every_byte() {
    let disk = SimDisk::new(1);
    let opened = open(&disk);
    let mut stream = Driven::create(&opened.engine, "s").unwrap();
    for _ in 0..20 {
        stream.append(&opened.engine);
    }
    let activities = |edit: fn(&mut Activity)| {
        edit(
            opened
                .engine
                .activities
                .lock()
                .streams
                .get_mut(&stream.id)
                .unwrap(),
        );
    };
    activities(|activity| activity.failed = true);
    opened.engine.rescue_in_background(stream.id);
    let path = stream_directory(stream.id).join(format!("entries-{:016x}", 20));
    let length = disk.content(&path).unwrap().len();
    drop(opened);
    let is_intact = || {
        let outline = StoreOutline::read(&disk, Path::new("/store"), None).unwrap();
        let rescued = &outline.streams[0].rescued[0];
        assert_eq!(rescued.upto, 20);
        rescued.intact
    };
    assert!(is_intact());
    for at in (0..length).step_by(3) {
        disk.flip_bit(&path, at as u64, 5);
        assert!(!is_intact(), "byte {at}");
        let opened = open(&disk);
        assert!(opened.streams[0].content.is_err(), "byte {at}");
        disk.flip_bit(&path, at as u64, 5);
    }
    let recovered = open(&disk).streams.remove(0);
    assert_eq!(Driven::recovered(recovered).index, 20);
}

#[test]
fn a_hole_in_a_stream_is_still_a_hole_when_the_journal_has_gone_on() {
    let disk = SimDisk::new(1);
    let opened = open(&disk);
    let mut stream = Driven::create(&opened.engine, "hole").unwrap();
    for _ in 0..20 {
        stream.append(&opened.engine);
    }
    drop(opened);
    let segment = Path::new("/store/journal/0000000000000001.seg");
    let third = content(stream.id, 3);
    let bytes = disk.content(segment).unwrap();
    let at = bytes
        .windows(third.len())
        .position(|window| window == third);
    disk.flip_bit(segment, at.unwrap() as u64, 0);
    for round in 0..3 {
        let opened = open(&disk);
        assert_eq!(opened.streams[0].holes, [(3, 3)], "round {round}");
        let entries = &opened.streams[0].content.as_ref().unwrap().entries;
        assert_eq!(entries.len(), 19);
        opened.engine.set_offline(stream.id);
        let mut busy = Driven::create(&opened.engine, &format!("busy {round}")).unwrap();
        for _ in 0..1500 {
            assert!(busy.append(&opened.engine));
            if opened.engine.pressure_level() > PressureLevel::None {
                busy.checkpoint(&opened.engine).unwrap();
            }
            assert!(opened.engine.pressure_level() < PressureLevel::Hard);
        }
        opened.engine.remove(busy.id).unwrap();
        drop(opened);
        disk.crash();
    }
    assert!(
        disk.content(segment).is_none(),
        "the segment is no longer needed"
    );
}

#[test]
fn the_log_of_a_replica_is_handed_over_whole_and_released_only_by_whoever_replicates() {
    let disk = SimDisk::new(1);
    let opened = open(&disk);
    let engine = &opened.engine;
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    engine.set_checkpoint_listener(move |id, index| heard.lock().push((id, index)));
    let form = Form::Replicated(Replica { group: 3, node: 7 });
    let (id, toy) = engine
        .create_as("account", "s", "s".to_owned(), form)
        .unwrap();
    let mut stream = Driven { id, toy, index: 0 };
    let recorder: Arc<dyn CommitSink> = Arc::new(Recorder::default());
    let vote = Frame {
        owner: id.owner(),
        index: 0,
        kind: FrameKind::Vote,
        payload: Bytes::from_static(b"vote").into(),
    };
    engine.submit_frames([(vote, 0)], &recorder).unwrap();
    for _ in 0..50 {
        stream.append(engine);
    }
    stream.checkpoint(engine).unwrap();
    assert_eq!(*told.lock(), [(id, 50)]);
    engine.release_frames(id.owner(), 20);
    stream.append(engine);
    drop(opened);
    disk.crash();
    let recovered = open(&disk).streams.remove(0);
    assert_eq!(recovered.form, form);
    let log = recovered.group_log.unwrap();
    assert_eq!(log.vote.unwrap().payload, "vote");
    let content = recovered.content.unwrap();
    assert_eq!((content.index, content.entries.len()), (50, 0));
    let indexes: Vec<u64> = log.entries.iter().map(|entry| entry.index).collect();
    assert_eq!(indexes.last(), Some(&51));
    assert!(
        indexes.contains(&21),
        "the checkpoint alone releases nothing"
    );
}

#[test]
fn a_stream_that_is_reformed_goes_on_from_its_checkpoint_in_the_new_form() {
    let disk = SimDisk::new(1);
    let opened = open(&disk);
    let mut stream = Driven::create(&opened.engine, "s").unwrap();
    for _ in 0..50 {
        stream.append(&opened.engine);
    }
    stream.checkpoint(&opened.engine).unwrap();
    let form = Form::Replicated(Replica { group: 3, node: 7 });
    opened.engine.reform(stream.id, form).unwrap();
    assert_eq!(opened.engine.form(stream.id), Some(form));
    stream.append(&opened.engine);
    drop(opened);
    disk.crash();
    let opened = open(&disk);
    let recovered = &opened.streams[0];
    assert_eq!(recovered.form, form);
    assert_eq!(recovered.content.as_ref().unwrap().index, 50);
    let indexes = recovered.group_log.as_ref().unwrap().entries.iter();
    assert_eq!(indexes.last().unwrap().index, 51);
    opened.engine.reform(stream.id, Form::Plain).unwrap();
    drop(opened);
    disk.crash();
    let recovered = open(&disk).streams.remove(0);
    assert_eq!(Driven::recovered(recovered).index, 51);
}

#[test]
fn the_state_of_a_group_of_the_server_is_carried_in_the_journal() {
    let disk = SimDisk::new(1);
    let opened = open(&disk);
    let recorder: Arc<dyn CommitSink> = Arc::new(Recorder::default());
    let owner = Owner(1);
    for index in [5, 9] {
        let state = Bytes::from(format!("state {index}"));
        let engine = &opened.engine;
        engine.carry_state(owner, index, state, &recorder).unwrap();
    }
    drop(opened);
    disk.crash();
    let mut opened = open(&disk);
    let found = opened.others.remove(&owner).unwrap().carry.unwrap();
    assert_eq!((found.index, &found.payload[..]), (9, &b"state 9"[..]));
}
