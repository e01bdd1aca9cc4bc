//! Block files that no checkpoint lists: moved out of the way at a start, removed once they are proven to be of no use.
//!
//! A server that is killed leaves the blocks that it began after its last checkpoint. The start begins at that checkpoint and
//! takes everything later from the log, so that nobody looks at those files again; but while the log is read they are
//! what is left should it turn out to be damaged. Their names say which checkpoint did not list them:
//! `NNNNNNNN-GGGG.block.INDEX-COPY`, with its index in the log (0 when there was none) and a number that tells copies apart.
//!
//! # Invariant
//! A file goes only when all of this is known: the checkpoint that this start began at is the one that did not list it; the log
//! after it was applied without loss, and no listed block is damaged; a checkpoint that covers what was applied is
//! durable; and the file's own headers speak of this stream and of no sequence above those. Every other file stays.

use hashbrown::HashSet;

use super::cut::Cut;
use super::files::Ground;
use super::name::{BlockName, SET_ASIDE};
use crate::block::verify::Outline;
use crate::disk::{DiskError, DiskErrorKind, OpenMode};

/// What this start has set aside, with what earlier ones have set aside for want of the same checkpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Aside {
    /// Names within the directory of what is set aside.
    files: Vec<String>,
    covered: Option<Covered>,
}

/// How far the log was applied again.
#[derive(Debug, Clone, Copy)]
struct Covered {
    index: u64,
    last_sequence: u64,
}

impl Aside {
    /// Moves the block files that the cut does not list out of the way.
    pub fn collect(ground: &Ground, cut: Option<&Cut>) -> Result<Self, DiskError> {
        let listed: HashSet<String> = cut.map(listed_names).unwrap_or_default();
        let entries = match ground.disk.list(&ground.directory) {
            Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(Self::default()),
            entries => entries?,
        };
        let was_there = entries.iter().any(|entry| entry.name == SET_ASIDE);
        let unlisted: Vec<String> = entries
            .into_iter()
            .filter(|entry| !entry.is_directory && BlockName::is_block(&entry.name))
            .map(|entry| entry.name)
            .filter(|name| !listed.contains(name))
            .collect();
        if !was_there && unlisted.is_empty() {
            return Ok(Self::default());
        }
        let aside = ground.directory.join(SET_ASIDE);
        if !unlisted.is_empty() {
            // Durable before anything is in it, or that would go with it.
            ground.disk.create_directory(&aside)?;
            ground.disk.sync_directory(&ground.directory)?;
        }
        let entries = ground.disk.list(&aside)?.into_iter();
        let mut names: HashSet<String> = entries.map(|entry| entry.name).collect();
        let index = cut.map_or(0, |cut| cut.index);
        for name in &unlisted {
            tracing::warn!(
                directory = %ground.directory.display(),
                file = name,
                "setting a block aside that no checkpoint lists"
            );
            let moved = (0u64..)
                .map(|copy| format!("{name}.{index}-{copy}"))
                .find(|moved| !names.contains(moved))
                .unwrap_or_default();
            let from = ground.directory.join(name);
            ground.disk.rename(&from, &aside.join(&moved))?;
            ground.disk.sync_directory(&aside)?;
            names.insert(moved);
        }
        if !unlisted.is_empty() {
            ground.disk.sync_directory(&ground.directory)?;
        }
        let (files, others): (Vec<String>, Vec<String>) = names
            .into_iter()
            .partition(|name| unlisted_by(name) == Some(index));
        if !others.is_empty() {
            tracing::warn!(
                directory = %aside.display(),
                files = ?others,
                "what earlier starts have set aside stays until somebody removes it"
            );
        }
        Ok(Self {
            files,
            covered: None,
        })
    }

    /// The log was applied without loss up to this index, at which the stream had this last sequence.
    pub fn cover(&mut self, index: u64, last_sequence: u64) {
        self.covered = (!self.files.is_empty()).then_some(Covered {
            index,
            last_sequence,
        });
    }

    /// What a checkpoint at this index makes useless, once it is durable; taken out.
    pub fn take_covered(&mut self, index: u64) -> Option<Self> {
        self.is_covered(index).then(|| std::mem::take(self))
    }

    /// Whether a checkpoint at this index makes it useless.
    pub fn is_covered(&self, index: u64) -> bool {
        self.covered.is_some_and(|covered| covered.index <= index)
    }

    /// Removes the files, but those whose headers say something else than is expected of them. To be called when the
    /// checkpoint is durable. What cannot be removed stays.
    pub fn remove(self, ground: &Ground) {
        let Some(covered) = self.covered else {
            return;
        };
        let aside = ground.directory.join(SET_ASIDE);
        for name in &self.files {
            let removed = match contradiction(ground, name, covered) {
                Ok(None) => ground.disk.remove_file(&aside.join(name)),
                Ok(Some(reason)) => {
                    tracing::warn!(directory = %aside.display(), file = name, reason, "a file that was set aside stays");
                    continue;
                }
                Err(error) => Err(error),
            };
            match removed {
                Ok(()) => {
                    tracing::info!(directory = %aside.display(), file = name, "removed: the checkpoint has what is in it");
                }
                Err(error) => {
                    tracing::warn!(directory = %aside.display(), file = name, %error, "a file that was set aside stays");
                }
            }
        }
        // A later start could prove nothing of a file that came back.
        if let Err(error) = ground.disk.sync_directory(&aside) {
            tracing::warn!(directory = %aside.display(), %error, "what was removed may come back");
        }
    }
}

fn listed_names(cut: &Cut) -> HashSet<String> {
    let sealed = cut.sealed.iter().map(|block| block.name);
    let open = cut.open.iter().map(|open| open.name);
    let names = sealed.chain(open).chain(cut.retired.iter().copied());
    names.map(|name| name.file_name()).collect()
}

/// The index of the checkpoint that did not list a file which was set aside.
fn unlisted_by(name: &str) -> Option<u64> {
    let (_, suffix) = name.rsplit_once('.')?;
    let (index, copy) = suffix.split_once('-')?;
    copy.parse::<u64>().ok()?;
    index.parse().ok()
}

/// What in a file does not fit a block that was written after the checkpoint and before the kill.
fn contradiction(
    ground: &Ground,
    name: &str,
    covered: Covered,
) -> Result<Option<&'static str>, DiskError> {
    let path = ground.directory.join(SET_ASIDE).join(name);
    let file = ground.disk.open(&path, OpenMode::Read)?;
    let length = file.length()?;
    if length == 0 {
        return Ok(None);
    }
    let Ok(outline) = Outline::read(&file.map(length)?, None) else {
        return Ok(Some("its header is not readable"));
    };
    let identity = outline.identity;
    let block = BlockName {
        number: identity.number,
        generation: identity.generation,
    };
    let is_named = name.strip_prefix(&block.file_name());
    if identity.stream != ground.options.stream || is_named.is_none() {
        return Ok(Some("it is another block than its name says"));
    }
    // A write that the kill cut short leaves an end that is not readable, and nothing behind it.
    if outline.lost.iter().any(|lost| lost.last_sequence.is_some()) {
        return Ok(Some("a part of it is damaged"));
    }
    let beyond = |(_, last): (u64, u64)| last > covered.last_sequence;
    Ok(match outline.sequences().is_some_and(beyond) {
        true => Some("it has messages that the log has not"),
        false => None,
    })
}
