//! The engine over the store that a server uses.

use super::*;
use crate::store::{Expiry, FileStore, NewMessage, Store};

fn open_files(disk: &SimDisk) -> Opened<FileStore> {
    let entropy = Arc::new(SeededEntropy::new(disk.changes()));
    let options = EngineOptions {
        carry_bytes_max: 4096,
        ..options()
    };
    Engine::open(Arc::new(disk.clone()), options, entropy).unwrap()
}

fn apply(store: &mut FileStore, index: u64, payload: &[u8]) {
    let message = NewMessage {
        sequence: index,
        time_ns: index as i64,
        subject: b"subject",
        headers: b"",
        payload,
        expiry: Expiry::ByAge,
    };
    store.append(&message, &mut ()).unwrap();
}

fn submit(engine: &Engine<FileStore>, id: StreamId, index: u64, payload: &Bytes) {
    let recorder = Arc::new(Recorder::default());
    let sink: Arc<dyn CommitSink> = recorder.clone();
    let entry = LogEntry {
        stream: id,
        index,
        payload: payload.clone().into(),
        token: 0,
    };
    engine.submit([entry], &sink).unwrap();
    assert_eq!(recorder.commits.lock().len(), 1);
}

#[test]
fn messages_survive_crashes_with_and_without_files() {
    for (seed, last) in [(1, 5u64), (2, 60), (3, 400)] {
        let disk = SimDisk::new(seed);
        let opened = open_files(&disk);
        let (id, mut store) = opened
            .engine
            .create("account", "orders", StoreOptions::default())
            .unwrap();
        for index in 1..=last {
            let payload = content(id, index);
            submit(&opened.engine, id, index, &payload);
            apply(&mut store, index, &payload);
            if index % 50 == 3 {
                let core = Bytes::from_static(b"core");
                opened
                    .engine
                    .checkpoint(id, &mut store, index, core)
                    .unwrap();
            }
        }
        drop((store, opened));
        disk.crash();
        let opened = open_files(&disk);
        let mut stream = opened.streams.into_iter().next().unwrap();
        assert_eq!(
            (&stream.account[..], &stream.name[..]),
            ("account", "orders")
        );
        let mut content_found = stream.content.as_mut().unwrap();
        assert_eq!(content_found.core, "core");
        assert_eq!(content_found.index, last.saturating_sub(3) / 50 * 50 + 3);
        let RecoveredStore { store, entries, .. } = &mut content_found;
        for (index, payload) in entries.drain(..) {
            apply(store, index, &payload);
        }
        assert_eq!(store.state().messages, last);
        for index in 1..=last {
            let message = store.load(index).unwrap().unwrap();
            assert_eq!(message.payload, content(id, index));
        }
        let has_files = !names(&disk, "/store/streams").is_empty();
        assert_eq!(has_files, last > 60, "{last}");
    }
}
