//! Answers about the certificates of peers, kept so that a responder is not asked at each connection, and over restarts.
//!
//! # Invariant
//! What is kept is a responder's answer as it came. It is checked again each time it is used, so that a file that somebody has changed
//! lets nobody in.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answer::{ANSWER_BYTES_MAX, Answer, Status};
use super::file;
use crate::config::options::{OcspCacheKind, OcspCacheOptions};

/// The file in the directory of the cache.
const FILE: &str = "cache.json";
/// A file that is larger was not written by us.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Answers that are kept.
const ANSWERS_MAX: usize = 16 * 1024;

/// An answer and what is known of it without reading it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    #[serde(default)]
    subject: String,
    cached_at: String,
    resp_status: String,
    /// In base64.
    resp: String,
}

/// How the cache is used, as monitoring shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheFigures {
    cache_type: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    cache_hits: u64,
    #[serde(skip_serializing_if = "is_zero")]
    cache_misses: u64,
    #[serde(skip_serializing_if = "is_zero")]
    cached_responses: u64,
    #[serde(skip_serializing_if = "is_zero")]
    cached_revoked_responses: u64,
    #[serde(skip_serializing_if = "is_zero")]
    cached_good_responses: u64,
    #[serde(skip_serializing_if = "is_zero")]
    cached_unknown_responses: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// All answers, by the fingerprint of the certificate.
#[derive(Debug)]
pub(super) struct Cache {
    options: OcspCacheOptions,
    kept: Mutex<Contents>,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Debug)]
struct Contents {
    answers: HashMap<String, Kept>,
    saved: Instant,
    changed: bool,
    /// A revocation was forgotten, which its file still tells of.
    is_urgent: bool,
}

impl Contents {
    fn is_revoked(&self, fingerprint: &str) -> bool {
        let kept = self.answers.get(fingerprint);
        kept.is_some_and(|kept| kept.resp_status == Status::Revoked.name())
    }
}

/// Every cache that is in use.
static IN_USE: Mutex<Vec<Weak<Cache>>> = Mutex::new(Vec::new());

impl Cache {
    /// The cache that the options ask for. All who ask for the same share it: a file has one writer, and what is known outlasts a reload.
    pub(super) fn shared(options: &OcspCacheOptions) -> Arc<Self> {
        let mut in_use = IN_USE.lock();
        in_use.retain(|cache| cache.strong_count() > 0);
        let mut all = in_use.iter().filter_map(Weak::upgrade);
        if let Some(found) = all.find(|cache| cache.options == *options) {
            return found;
        }
        let cache = Arc::new(Self::open(options));
        // What is in memory alone belongs to whoever asked for it.
        if options.kind == OcspCacheKind::Local {
            in_use.push(Arc::downgrade(&cache));
        }
        cache
    }

    /// The cache that the options ask for, with what an earlier one has left.
    fn open(options: &OcspCacheOptions) -> Self {
        let cache = Self {
            options: options.clone(),
            kept: Mutex::new(Contents {
                answers: HashMap::new(),
                saved: Instant::now(),
                changed: false,
                is_urgent: false,
            }),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        };
        if let Some(path) = cache.path() {
            cache.kept.lock().answers = load(&path);
        }
        cache
    }

    fn path(&self) -> Option<PathBuf> {
        match self.options.kind {
            OcspCacheKind::None | OcspCacheKind::Memory => None,
            OcspCacheKind::Local => Some(self.options.directory.join(FILE)),
        }
    }

    /// The answer about a certificate, unchecked.
    pub(super) fn get(&self, fingerprint: &str) -> Option<Vec<u8>> {
        let found = self.kept.lock().answers.get(fingerprint).cloned();
        let counter = if found.is_some() {
            &self.hits
        } else {
            &self.misses
        };
        counter.fetch_add(1, Ordering::Relaxed);
        STANDARD.decode(found?.resp).ok()
    }

    /// Keeps an answer that has been checked.
    pub(super) fn put(&self, fingerprint: &str, subject: &str, answer: &Answer, bytes: &[u8]) {
        if self.options.kind == OcspCacheKind::None {
            return;
        }
        let mut contents = self.kept.lock();
        if contents.answers.len() >= ANSWERS_MAX && !contents.answers.contains_key(fingerprint) {
            return;
        }
        let kept = Kept {
            subject: subject.to_owned(),
            cached_at: OffsetDateTime::now_utc()
                .format(&Rfc3339)
                .unwrap_or_default(),
            resp_status: answer.status.name().to_owned(),
            resp: STANDARD.encode(bytes),
        };
        let was_revoked = contents.is_revoked(fingerprint) || contents.is_urgent;
        contents.answers.insert(fingerprint.to_owned(), kept);
        contents.changed = true;
        // Who is revoked must not come in after a crash because the responder cannot be reached then; and who is no more, may.
        let matters = was_revoked || answer.status == Status::Revoked;
        if matters || contents.saved.elapsed() >= self.options.save_interval {
            self.save(&mut contents);
        }
    }

    /// Forgets an answer that is of no use; one that says that the certificate is revoked may have to stay.
    pub(super) fn forget(&self, fingerprint: &str) {
        let mut contents = self.kept.lock();
        let stays = self.options.preserve_revoked && contents.is_revoked(fingerprint);
        contents.is_urgent |= !stays && contents.is_revoked(fingerprint);
        if !stays && contents.answers.remove(fingerprint).is_some() {
            contents.changed = true;
        }
        // It was found and is no answer.
        self.hits.fetch_sub(1, Ordering::Relaxed);
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// How it is used.
    pub(super) fn figures(&self) -> CacheFigures {
        let contents = self.kept.lock();
        let count = |status: Status| {
            let all = contents.answers.values();
            all.filter(|kept| kept.resp_status == status.name()).count() as u64
        };
        CacheFigures {
            cache_type: match self.options.kind {
                OcspCacheKind::None => "none",
                OcspCacheKind::Local => "local",
                OcspCacheKind::Memory => "memory",
            },
            cache_hits: self.hits.load(Ordering::Relaxed),
            cache_misses: self.misses.load(Ordering::Relaxed),
            cached_responses: contents.answers.len() as u64,
            cached_revoked_responses: count(Status::Revoked),
            cached_good_responses: count(Status::Good),
            cached_unknown_responses: count(Status::Unknown),
        }
    }

    /// Writes it down.
    fn save(&self, contents: &mut Contents) {
        let Some(path) = self.path() else {
            return;
        };
        let text = serde_json::to_vec(&contents.answers).unwrap_or_default();
        if let Err(error) = file::replace(&path, &text) {
            tracing::error!(
                "Unable to save OCSP peer cache: {}: {error}",
                path.display()
            );
        }
        contents.saved = Instant::now();
        (contents.changed, contents.is_urgent) = (false, false);
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let mut contents = self.kept.lock();
        if contents.changed {
            self.save(&mut contents);
        }
    }
}

/// What an earlier cache has left; nothing where it cannot be read.
fn load(path: &std::path::Path) -> HashMap<String, Kept> {
    let Ok(found) = std::fs::metadata(path) else {
        return HashMap::new();
    };
    if found.len() > FILE_BYTES_MAX {
        tracing::error!(
            "Unable to load OCSP peer cache: {} is too large",
            path.display()
        );
        return HashMap::new();
    }
    let bytes = std::fs::read(path).unwrap_or_default();
    let answers: HashMap<String, Kept> = match serde_json::from_slice(&bytes) {
        Ok(answers) => answers,
        Err(error) => {
            tracing::error!(
                "Unable to load OCSP peer cache: {}: {error}",
                path.display()
            );
            return HashMap::new();
        }
    };
    let sound = answers
        .into_iter()
        .filter(|(_, kept)| kept.resp.len() <= ANSWER_BYTES_MAX * 2);
    sound.take(ANSWERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_revocation_and_its_end_are_written_down_at_once_and_the_rest_when_it_is_time() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&OcspCacheOptions {
            directory: folder.path().join("rc"),
            save_interval: Duration::from_secs(3600),
            ..OcspCacheOptions::default()
        });
        let put = |fingerprint: &str, status| {
            let answer = Answer {
                status,
                this_update: SystemTime::now(),
                next_update: None,
            };
            cache.put(fingerprint, "CN=x", &answer, b"x");
        };
        let path = cache.path().unwrap();
        put("a", Status::Good);
        assert!(!path.exists());
        put("b", Status::Revoked);
        assert_eq!(load(&path)["b"].resp_status, "revoked");
        put("c", Status::Good);
        assert!(!load(&path).contains_key("c"));
        // Whoever asks anew forgets first what is not sure any more.
        cache.forget("b");
        put("b", Status::Good);
        assert_eq!(load(&path)["b"].resp_status, "good");
    }
}
