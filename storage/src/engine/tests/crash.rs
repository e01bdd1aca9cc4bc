//! The power goes at every single change of the disk, while streams are created, appended to, checkpointed and removed.

use std::collections::BTreeMap;

use super::*;

/// What was promised to whoever used the engine.
#[derive(Default)]
struct Promised {
    /// By name: the id, and how many entries were acknowledged. `None` once the removal was acknowledged.
    streams: BTreeMap<String, Option<(StreamId, u64)>>,
    /// A stream whose creation or removal was under way: it may be there or not.
    in_doubt: Option<String>,
}

fn run_until_halt(disk: &SimDisk) -> Promised {
    let mut promised = Promised::default();
    let Ok(opened) = try_open(disk, options()) else {
        return promised;
    };
    let engine = opened.engine;
    let mut streams: Vec<(String, Driven)> = Vec::new();
    for round in 0..48u64 {
        match round % 12 {
            0 => {
                let name = format!("stream {round}");
                promised.in_doubt = Some(name.clone());
                let Ok(driven) = Driven::create(&engine, &name) else {
                    return promised;
                };
                promised.in_doubt = None;
                promised.streams.insert(name.clone(), Some((driven.id, 0)));
                streams.push((name, driven));
            }
            5 | 10 => {
                for (_, driven) in &mut streams {
                    if driven.checkpoint(&engine).is_err() {
                        return promised;
                    }
                }
            }
            11 if streams.len() > 2 => {
                let (name, driven) = streams.remove(0);
                promised.in_doubt = Some(name.clone());
                if engine.remove(driven.id).is_err() {
                    return promised;
                }
                promised.in_doubt = None;
                promised.streams.insert(name, None);
            }
            _ => {
                for (name, driven) in &mut streams {
                    for _ in 0..3 {
                        if !driven.append(&engine) {
                            return promised;
                        }
                        promised
                            .streams
                            .insert(name.clone(), Some((driven.id, driven.index)));
                    }
                }
            }
        }
        if disk.is_halted() {
            return promised;
        }
    }
    engine.close();
    promised
}

fn check(opened: Opened<Toy>, promised: &Promised, context: &str) {
    assert!(opened.damage.is_empty(), "{context}: {:?}", opened.damage);
    assert!(opened.unknown.is_empty(), "{context}: {:?}", opened.unknown);
    let mut found: BTreeMap<String, Driven> = BTreeMap::new();
    for recovered in opened.streams {
        assert_eq!(recovered.options, recovered.name, "{context}");
        found.insert(recovered.name.clone(), Driven::recovered(recovered));
    }
    for (name, promise) in &promised.streams {
        let stream = found.remove(name);
        match promise {
            None => assert!(stream.is_none(), "{context}: {name} was removed"),
            Some((id, acknowledged)) => {
                let in_doubt = promised.in_doubt.as_ref() == Some(name);
                let Some(stream) = stream else {
                    assert!(in_doubt, "{context}: {name} is gone");
                    continue;
                };
                assert_eq!(stream.id, *id, "{context}");
                let index = stream.index;
                assert!(
                    index >= *acknowledged,
                    "{context}: {name} {index} {acknowledged}"
                );
                assert!(
                    index <= acknowledged + 1,
                    "{context}: {name} invents entries"
                );
                let expected: Vec<Bytes> = (1..=index).map(|at| content(*id, at)).collect();
                assert_eq!(stream.toy.entries, expected, "{context}: {name}");
            }
        }
    }
    for (name, stream) in found {
        assert_eq!(
            promised.in_doubt.as_ref(),
            Some(&name),
            "{context}: {name} is invented"
        );
        assert_eq!(stream.index, 0);
    }
}

#[test]
fn what_was_acknowledged_survives_a_crash_at_every_change() {
    let whole = SimDisk::new(0);
    let promised = run_until_halt(&whole);
    assert!(promised.streams.values().any(Option::is_none));
    check(open(&whole), &promised, "no crash");
    let changes = whole.changes();
    assert!(changes > 300, "{changes} changes only");
    for halt in 0..changes {
        let seed = halt + 1;
        let context = format!("seed {seed}, halted at change {halt}");
        let disk = SimDisk::new(seed);
        disk.halt_at(halt);
        let promised = run_until_halt(&disk);
        disk.crash();
        // The recovery is interrupted once, too.
        disk.halt_at(disk.changes() + halt % 13);
        drop(try_open(&disk, options()));
        disk.crash();
        check(open(&disk), &promised, &context);
        disk.crash();
        check(open(&disk), &promised, &context);
    }
}

#[test]
fn a_new_stream_never_gets_the_id_of_a_removed_one() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let mut highest = StreamId(0);
        for round in 0..6 {
            let opened = open(&disk);
            let mut stream = Driven::create(&opened.engine, &format!("{round}")).unwrap();
            assert!(stream.id > highest, "seed {seed}");
            highest = stream.id;
            assert!(stream.append(&opened.engine));
            if round % 2 == 0 {
                opened.engine.carry_catalog().unwrap();
            }
            opened.engine.remove(stream.id).unwrap();
            disk.crash();
        }
    }
}
