//! Conversions between one replica and several that end at every possible change of the disk: the next start finds the stream in one form or the other, with all
//! of its messages.

use std::sync::Arc;

use bytes::Bytes;
use raft::group::Checkpoint;
use storage::disk::sim::SimDisk;
use storage::engine::{
    EngineOptions, FileEngine, Form, Opened, Replica, StoreOptions, StreamId, Threads,
};
use storage::entropy::SeededEntropy;
use storage::store::{Expiry, FileStore, NewMessage};

use super::config;
use crate::broker::Broker;
use crate::jetstream::core::StreamCore;
use crate::jetstream::log::Log;
use crate::jetstream::replication::stream::recover::{LostReplica, recover};
use crate::jetstream::replication::stream::scale::{
    finish_plain, is_half_plain, to_plain, to_replicated,
};
use crate::jetstream::shard::{EngineLog, Surrendered};
use crate::jetstream::usage::Meter;

const MESSAGES: u64 = 20;
const REPLICA: Replica = Replica { group: 3, node: 7 };

fn open(disk: &SimDisk, run: u64) -> Opened<FileStore> {
    let mut options = EngineOptions::new("/store");
    options.threads = Threads::None;
    options.reserve_bytes = 0;
    options.journal.segment_bytes = 128 * 1024;
    let disk = Arc::new(disk.clone());
    FileEngine::open(disk, options, Arc::new(SeededEntropy::new(run))).expect("the store opens")
}

fn surrendered(core: StreamCore, id: StreamId) -> Surrendered {
    Surrendered {
        core,
        account: Arc::clone(Broker::new().global()),
        storage: id.0,
        meter: Meter::default(),
    }
}

/// A stream with one replica, and messages that a checkpoint covers.
fn plain(engine: &Arc<FileEngine>) -> Surrendered {
    let made = engine.create("$G", "S", StoreOptions::default());
    let (id, store) = made.expect("creates");
    let core = StreamCore::create(config(), "", 1_000, Box::new(store));
    let mut core = core.expect("creates");
    for sequence in 1..=MESSAGES {
        let message = NewMessage {
            sequence,
            time_ns: 1_000,
            expiry: Expiry::ByAge,
            subject: b"s.a",
            headers: b"",
            payload: b"hello",
        };
        core.store_mut().append(&message, &mut ()).expect("appends");
    }
    core.pass(5);
    surrendered(core, id)
}

fn replicated(engine: &Arc<FileEngine>) -> Surrendered {
    let stream = plain(engine);
    let log: Arc<dyn Log> = Arc::new(EngineLog(Arc::clone(engine)));
    let id = StreamId(stream.storage);
    let founding = to_replicated(engine, log, stream, REPLICA, "s1").expect("it is reformed");
    surrendered(founding.setup.core, id)
}

/// What a start makes of what is there; says whether it is replicated.
fn start(disk: &SimDisk, run: u64) -> bool {
    let Opened {
        engine,
        mut streams,
        damage,
        ..
    } = open(disk, run);
    let found = streams.pop().expect("the stream is there");
    let (form, id) = (found.form, found.id);
    let (core, is_replicated) = match form {
        Form::Plain => {
            let content = found.content.expect("restores");
            let store = Box::new(content.store);
            let core = StreamCore::recover(&content.core, content.entries, "", store);
            (core.expect("recovers"), false)
        }
        Form::Replicated(replica) if is_half_plain(&found) => {
            assert_eq!(replica, REPLICA);
            let core = finish_plain(&engine, found, "").expect("it is finished");
            assert_eq!(engine.form(id), Some(Form::Plain));
            (core, false)
        }
        Form::Replicated(_) => match recover(found, &damage, "") {
            Ok(found) => {
                assert_eq!(found.position.at.index, 5);
                (found.core, true)
            }
            Err(LostReplica::Groupless) => panic!("its group is not known"),
            Err(lost) => panic!("{lost}"),
        },
    };
    assert_eq!(core.store().state().messages, MESSAGES, "{form:?}");
    engine.close();
    is_replicated
}

/// Runs a conversion until the disk stops at its `change`th change, cuts the power, and starts. Says whether the conversion had ended, and whether the stream is
/// replicated then.
fn cut(change: u64, upwards: bool) -> (bool, bool) {
    let disk = SimDisk::new(change + 1);
    let opened = open(&disk, 1);
    let engine = opened.engine;
    let stream = match upwards {
        true => {
            let mut stream = plain(&engine);
            keep(&engine, &mut stream);
            stream
        }
        false => replicated(&engine),
    };
    disk.halt_at(disk.changes() + change);
    let ended = match upwards {
        true => {
            let log: Arc<dyn Log> = Arc::new(EngineLog(Arc::clone(&engine)));
            to_replicated(&engine, log, stream, REPLICA, "s1").is_ok()
        }
        false => to_plain(&engine, stream).is_ok(),
    };
    let ended = ended && !disk.is_halted();
    engine.close();
    drop(engine);
    disk.crash();
    let first = start(&disk, 2);
    assert_eq!(start(&disk, 3), first, "a second start finds the same");
    (ended, first)
}

/// Makes a checkpoint of a stream durable.
fn keep(engine: &Arc<FileEngine>, stream: &mut Surrendered) {
    stream.core.set_group(Bytes::new());
    let (core, index) = (stream.core.snapshot(), stream.core.applied_index());
    let store: &mut dyn std::any::Any = stream.core.store_mut();
    let store = store.downcast_mut::<FileStore>().expect("files");
    let id = StreamId(stream.storage);
    engine
        .checkpoint(id, store, index, core)
        .expect("it begins");
    engine.wait_until_idle();
}

fn every_cut(upwards: bool) {
    let mut forms = Vec::new();
    for change in 0.. {
        let (ended, is_replicated) = cut(change, upwards);
        forms.push(is_replicated);
        if ended {
            assert_eq!(is_replicated, upwards);
            break;
        }
        assert!(change < 1000, "it never ends");
    }
    assert!(forms.len() > 3, "it was cut nowhere");
    assert_eq!(forms.first(), Some(&!upwards));
}

#[test]
fn a_conversion_to_one_replica_that_is_cut_anywhere_is_finished_or_was_not_begun() {
    every_cut(false);
}

#[test]
fn a_conversion_to_several_replicas_that_is_cut_anywhere_loses_nothing() {
    every_cut(true);
}

#[test]
fn a_replica_whose_conversion_was_cut_is_known_by_its_state() {
    let disk = SimDisk::new(1);
    let engine = open(&disk, 1).engine;
    let mut stream = replicated(&engine);
    assert!(Checkpoint::decode(stream.core.group()).is_ok());
    keep(&engine, &mut stream);
    engine.close();
    drop((engine, stream));
    assert!(!start(&disk, 2));
}
