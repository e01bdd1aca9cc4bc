//! Reading as much of a segment file as holds commits.

use crate::disk::{Advice, DiskError, DiskErrorKind, DiskFile};
use crate::journal::format::{COMMIT_HEADER_BYTES, CommitHeader, PAGE_BYTES, SegmentHeader};

/// How much is read at once.
const CHUNK_BYTES: usize = 1024 * 1024;
/// How far the mark of an orderly end is looked for.
const CLOSED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The bytes from the file's first up to `end`, or up to the end of the last commit of this incarnation when that is not known.
/// Pages that the device cannot read are zero and fail their checks later.
pub(super) fn load(
    file: &dyn DiskFile,
    header: &SegmentHeader,
    end: Option<u64>,
) -> Result<Vec<u8>, DiskError> {
    let commits_end = header.length.min(file.length()?) as usize;
    let commits_end = commits_end.saturating_sub(PAGE_BYTES);
    let end = match end {
        Some(end) => commits_end.min(end as usize),
        None => find_end(file, header, commits_end)?,
    };
    let mut bytes = vec![0; end];
    file.advise(0, end as u64, Advice::Sequential);
    for (number, chunk) in bytes.chunks_mut(CHUNK_BYTES).enumerate() {
        read_what_can_be_read(file, chunk, (number * CHUNK_BYTES) as u64)?;
    }
    Ok(bytes)
}

/// The end of a journal that was closed in order: nothing was written behind the mark that says so, and it is found from header to header without the rest of
/// the segment being read. `None` when there is none, or a header on the way to it does not lead there.
fn closed_end(
    file: &dyn DiskFile,
    header: &SegmentHeader,
    commits_end: usize,
) -> Result<Option<usize>, DiskError> {
    let seed = header.seed();
    let (mut at, mut lsn) = (PAGE_BYTES, header.first_lsn);
    let mut head = [0; COMMIT_HEADER_BYTES];
    // A segment that nobody needs is left short by its end in order; one that holds what somebody needs may be long, and is then read like any other.
    while at < commits_end.min(CLOSED_BYTES_MAX) {
        read_what_can_be_read(file, &mut head, at as u64)?;
        let commit = CommitHeader::decode(&head, seed).filter(|commit| commit.lsn == lsn);
        let Some(commit) = commit else {
            return Ok(None);
        };
        at = at.saturating_add(commit.stored_bytes());
        lsn = lsn.saturating_add(1);
        if commit.closing {
            return Ok((at <= commits_end).then_some(at));
        }
    }
    Ok(None)
}

/// Where the last commit of this incarnation ends, whatever lies between.
fn find_end(
    file: &dyn DiskFile,
    header: &SegmentHeader,
    commits_end: usize,
) -> Result<usize, DiskError> {
    if let Some(end) = closed_end(file, header, commits_end)? {
        return Ok(end);
    }
    let seed = header.seed();
    let mut end = PAGE_BYTES.min(commits_end);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = end;
    while at < commits_end {
        let now = CHUNK_BYTES.min(commits_end - at);
        let chunk = chunk.get_mut(..now).unwrap_or_default();
        read_what_can_be_read(file, chunk, at as u64)?;
        for (number, page) in chunk.chunks(PAGE_BYTES).enumerate() {
            let head = page.get(..COMMIT_HEADER_BYTES).unwrap_or_default();
            if let Some(commit) = CommitHeader::decode(head, seed) {
                let commit_end = at + number * PAGE_BYTES + commit.stored_bytes();
                if commit_end <= commits_end {
                    end = end.max(commit_end);
                }
            }
        }
        at += now;
    }
    Ok(end)
}

/// Reads a range, and page by page when that fails: a bad sector must not cost its neighbours.
fn read_what_can_be_read(file: &dyn DiskFile, bytes: &mut [u8], at: u64) -> Result<(), DiskError> {
    let is_medium = |error: &DiskError| matches!(error.kind, DiskErrorKind::Io(_));
    match file.read_exact_at(bytes, at) {
        Err(error) if is_medium(&error) => {}
        result => return result,
    }
    for (number, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
        let page_at = at + (number * PAGE_BYTES) as u64;
        match file.read_exact_at(page, page_at) {
            Err(error) if is_medium(&error) => {
                tracing::error!(%error, offset = page_at, "a page of the journal cannot be read");
                page.fill(0);
            }
            result => result?,
        }
    }
    Ok(())
}
