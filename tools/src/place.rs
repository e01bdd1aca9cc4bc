//! What a path is: a store, the directory of one stream, or one block.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use storage::disk::RealDisk;
use storage::engine::{JOURNAL_NAME, STREAMS_NAME, StoreOutline, StoredStream};
use storage::seal::KeyRing;

use crate::arguments::Scope;
use crate::stream::Stream;

/// What is looked at.
pub enum Place {
    Store(Box<StoreOutline>),
    Stream(PathBuf),
    Block(PathBuf),
}

/// Where a server keeps its store within the directory it is given.
pub const SERVER_SUBDIRECTORY: &str = "jetstream";

impl Place {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Store(_) => "store",
            Self::Stream(_) => "stream",
            Self::Block(_) => "block",
        }
    }

    /// The streams in it that `--stream` asks for, with the blocks that the other options ask for.
    pub fn streams(&self, ring: Option<&KeyRing>, scope: &Scope) -> Result<Vec<Stream>> {
        let streams = match self {
            Self::Store(store) => store
                .streams
                .iter()
                .map(|stored| Stream::of_store(stored, ring, scope))
                .collect::<Result<_>>()?,
            Self::Stream(directory) => vec![match stored(directory, ring)? {
                Some(stored) => Stream::of_store(&stored, ring, scope)?,
                None => Stream::open(directory, ring, scope)?,
            }],
            Self::Block(path) => vec![Stream::of_block(path, ring, scope)?],
        };
        let Some(wanted) = &scope.stream else {
            return Ok(streams);
        };
        let streams: Vec<Stream> = streams
            .into_iter()
            .filter(|stream| stream.is_called(wanted))
            .collect();
        if streams.is_empty() {
            bail!("{}: no stream `{wanted}`", scope.path.display());
        }
        Ok(streams)
    }
}

pub fn find(scope: &Scope, ring: Option<&KeyRing>) -> Result<Place> {
    let path = &scope.path;
    let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    if metadata.is_file() {
        return Ok(Place::Block(path.clone()));
    }
    for directory in [path, &path.join(SERVER_SUBDIRECTORY)] {
        if directory.join(JOURNAL_NAME).is_dir() || directory.join(STREAMS_NAME).is_dir() {
            let store = StoreOutline::read(&RealDisk, directory, ring)?;
            return Ok(Place::Store(Box::new(store)));
        }
    }
    if is_stream(path)? {
        return Ok(Place::Stream(path.clone()));
    }
    bail!(
        "{}: neither a store, nor a stream's directory, nor a block",
        path.display()
    )
}

/// What the store around a stream's directory knows of it, if there is one.
fn stored(directory: &Path, ring: Option<&KeyRing>) -> Result<Option<StoredStream>> {
    let directory = directory.canonicalize()?;
    let streams = directory
        .parent()
        .filter(|path| path.ends_with(STREAMS_NAME));
    let Some(store) = streams.and_then(Path::parent) else {
        return Ok(None);
    };
    let outline = StoreOutline::read(&RealDisk, store, ring)?;
    let mut streams = outline.streams.into_iter();
    Ok(streams.find(|stream| stream.directory == directory))
}

fn is_stream(directory: &Path) -> Result<bool> {
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name == "checkpoint" || name.ends_with(".block") {
            return Ok(true);
        }
    }
    Ok(false)
}
