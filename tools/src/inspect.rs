//! `filestore inspect`: what the files hold.

mod print;
mod records;
mod report;

use anyhow::Result;

use crate::Outcome;
use crate::arguments::Inspect;
use crate::keys;
use crate::place::{self, Place};
use crate::progress::Progress;
use crate::stream::Stream;
use report::{Report, SegmentReport, StreamReport};

pub fn run(arguments: &Inspect) -> Result<Outcome> {
    let scope = &arguments.scope;
    let keys = keys::open(scope)?;
    let ring = keys.as_deref();
    let place = place::find(scope, ring)?;
    let streams = place.streams(ring, scope)?;
    if arguments.records {
        return records::list(arguments, &streams, keys.as_ref());
    }
    let mut progress = Progress::new(streams.iter().map(Stream::bytes).sum());
    let report = Report {
        path: scope.path.display().to_string(),
        kind: place.kind(),
        streams: streams
            .iter()
            .map(|stream| StreamReport::new(stream, ring, &mut progress))
            .collect::<Result<_>>()?,
        journal: match &place {
            Place::Store(store) => SegmentReport::all(&store.segments),
            Place::Stream(_) | Place::Block(_) => Vec::new(),
        },
        locked: streams.iter().any(Stream::is_locked)
            || matches!(&place, Place::Store(store) if store.locked),
        catalog_damaged: matches!(&place, Place::Store(store) if store.catalog_damaged),
    };
    drop(progress);
    let mut out = std::io::stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        std::io::Write::write_all(&mut out, b"\n")?;
    } else {
        print::report(&mut out, &report)?;
    }
    Ok(match report.is_damaged() {
        true => Outcome::Damage,
        false => Outcome::AllWell,
    })
}
