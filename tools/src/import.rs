//! `filestore import`: from the store of a stopped reference server to one of ours.
//!
//! One stream after another, each of them there as a whole or not at all. Streams that are there already are left as they are, so that an import that was interrupted
//! can be run again.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use nats_server::jetstream::archive::{
    Findings, Landing, OnDamage, StreamBuilder, StreamMeta, is_unborn,
};
use nats_server::jetstream::types::Storage;
use storage::disk::RealDisk;
use storage::engine::{EncryptionOptions, EngineOptions, FileEngine};
use storage::entropy::SystemEntropy;
use storage::seal::Cipher;
use storage::store::State;

use crate::Outcome;
use crate::arguments::{Import, ImportCipher};
use crate::place::SERVER_SUBDIRECTORY;
use crate::progress::Progress;
use crate::reference::{MasterKeys, ReferenceStore, StreamDirectory};
use crate::text;

/// Damaged records that are named; of more it is said how many.
const NAMED_MAX: usize = 20;

pub fn run(arguments: &Import) -> Result<Outcome> {
    let store = ReferenceStore::open(&arguments.from)?;
    let target = target(&arguments.to);
    ensure!(
        !is_same(&store.root, &target),
        "{}: the store to read and the one to write are the same",
        target.display()
    );
    for (path, why) in &store.left_out {
        println!("{}: left out: {why}", path.display());
    }
    let keys = MasterKeys::new(
        arguments.from_keys.from_key.clone(),
        arguments.from_keys.from_previous_key.clone(),
    );
    let wanted = |stream: &&StreamDirectory| {
        arguments.stream.as_ref().is_none_or(|wanted| {
            *wanted == stream.name || *wanted == format!("{}/{}", stream.account, stream.name)
        })
    };
    let streams: Vec<&StreamDirectory> = store.streams.iter().filter(wanted).collect();
    ensure!(!streams.is_empty(), "no such stream");
    let engine = open(&target, arguments)?;
    let import = ImportRun {
        engine: engine.engine,
        there: engine.there,
        keys,
        on_damage: match arguments.skip_damaged {
            true => OnDamage::Pass,
            false => OnDamage::Fail,
        },
    };
    let outcome = import.all(&streams);
    import.engine.close();
    outcome
}

/// Where a server keeps its store that is given this directory.
fn target(path: &Path) -> PathBuf {
    match path.ends_with(SERVER_SUBDIRECTORY) {
        true => path.to_owned(),
        false => path.join(SERVER_SUBDIRECTORY),
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

struct OpenedTarget {
    engine: Arc<FileEngine>,
    /// The streams that are there: account and name.
    there: HashSet<(String, String)>,
}

fn open(target: &Path, arguments: &Import) -> Result<OpenedTarget> {
    std::fs::create_dir_all(target).with_context(|| target.display().to_string())?;
    let mut options = EngineOptions::new(target);
    let keys = &arguments.to_keys;
    options.encryption = keys.to_key.as_ref().map(|key| EncryptionOptions {
        passphrase: key.clone().into_bytes(),
        previous: keys.to_previous_key.clone().map(String::into_bytes),
        cipher: match keys.to_cipher {
            ImportCipher::Chacha => Cipher::ChaCha20Poly1305,
            ImportCipher::Aes => Cipher::Aes256Gcm,
        },
    });
    let opened = FileEngine::open(Arc::new(RealDisk), options, Arc::new(SystemEntropy))
        .with_context(|| target.display().to_string())?;
    ensure!(
        opened.damage.is_empty(),
        "{}: the journal is damaged; nothing is imported into it",
        target.display()
    );
    let mut there = HashSet::new();
    for recovered in &opened.streams {
        if is_unborn(recovered) {
            // What an interrupted import left.
            opened.engine.remove(recovered.id)?;
        } else {
            there.insert((recovered.account.clone(), recovered.name.clone()));
        }
    }
    Ok(OpenedTarget {
        engine: opened.engine,
        there,
    })
}

struct ImportRun {
    engine: Arc<FileEngine>,
    there: HashSet<(String, String)>,
    keys: MasterKeys,
    on_damage: OnDamage,
}

impl ImportRun {
    fn all(&self, streams: &[&StreamDirectory]) -> Result<Outcome> {
        let mut refused = BTreeMap::new();
        for stream in streams {
            let title = format!("{}/{}", stream.account, stream.name);
            let key = (stream.account.clone(), stream.name.clone());
            if self.there.contains(&key) {
                println!("{title}: there already, left as it is");
                continue;
            }
            if let Err(error) = self.one(stream, &title) {
                eprintln!("{title}: not imported: {error:#}");
                refused.insert(title, error);
            }
        }
        match refused.is_empty() {
            true => Ok(Outcome::AllWell),
            false => Ok(Outcome::Damage),
        }
    }

    fn one(&self, stream: &StreamDirectory, title: &str) -> Result<()> {
        let mut meta = stream.meta(&self.keys)?;
        let replicas = meta.config.num_replicas;
        prepare(&mut meta)?;
        let consumers = stream.consumers()?;
        let (account, name) = (&stream.account, &stream.name);
        let begun = Landing::begin(&self.engine, account, meta, name, self.on_damage);
        let (landing, mut builder) = begun?;
        self.blocks(stream, title, &mut builder)?;
        if let Some(index) = stream.index(&self.keys)? {
            builder.index(&index);
        }
        for consumer in &consumers {
            let (meta, state) = consumer.read(stream, &self.keys)?;
            let file = format!("obs/{}/o.dat", consumer.name);
            builder.consumer(&file, meta, state.as_deref())?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let (mut core, findings) = builder.finish(i64::try_from(now.as_nanos())?)?;
        let state = core.store().state();
        landing.finish(&mut core)?;
        report(title, &state, consumers.len(), &findings);
        if replicas > 1 {
            println!("  it had {replicas} replicas and has one here");
        }
        Ok(())
    }

    fn blocks(
        &self,
        stream: &StreamDirectory,
        title: &str,
        builder: &mut StreamBuilder,
    ) -> Result<()> {
        let blocks = stream.blocks()?;
        let mut progress = Progress::new(blocks.iter().map(|block| block.bytes).sum());
        for block in &blocks {
            progress.file(&format!("{title} {}.blk", block.number));
            let file = block.path.display().to_string();
            match stream.block(block, &self.keys) {
                Ok(records) => builder.block(block.number, &file, &records[..])?,
                Err(error) => builder.lost_block(&file, format!("{error:#}"))?,
            }
            progress.done(block.bytes);
        }
        Ok(())
    }
}

/// What cannot come over is refused before anything is written, and what cannot come as it was is changed.
fn prepare(meta: &mut StreamMeta) -> Result<()> {
    let config = &mut meta.config;
    if config.storage == Storage::Memory {
        bail!("its messages were in memory, and have gone with the server");
    }
    // Whoever starts this store is alone at first: a cluster's servers take copies when they are asked to.
    config.num_replicas = 1;
    Ok(())
}

fn report(title: &str, state: &State, consumers: usize, findings: &Findings) {
    println!(
        "{title}: {}, {}, sequences {} to {}, {}",
        text::counted(state.messages, "message", "messages"),
        text::size(state.bytes),
        text::grouped(state.first_sequence),
        text::grouped(state.last_sequence),
        text::counted(consumers as u64, "consumer", "consumers"),
    );
    if let Some(reason) = &findings.without_index {
        println!("  its index.db does not count ({reason}): what is live is taken from the blocks");
    }
    for passed in findings.passed.iter().take(NAMED_MAX) {
        match passed.sequences {
            Some((first, last)) if first == last => {
                println!(
                    "  skipped: sequence {first}: {}: {}",
                    passed.file, passed.reason
                );
            }
            Some((first, last)) => println!(
                "  skipped: sequences {first} to {last}: {}: {}",
                passed.file, passed.reason
            ),
            None => println!("  skipped: {}: {}", passed.file, passed.reason),
        }
    }
    let more = findings.passed.len().saturating_sub(NAMED_MAX) as u64 + findings.passed_more;
    if more > 0 {
        println!("  skipped: {} more", text::grouped(more));
    }
}
