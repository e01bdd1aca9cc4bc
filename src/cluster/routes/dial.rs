//! Dialling a server until its connections are there, and again when they are gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::handshake::{self, Aim, RouteError};
use super::options::RouteOptions;
use super::shared::Core;
use super::socket::TalkError;
use super::table::NoPlace;
use crate::config::options::RouteUrl;

/// The pause before a dial that is not the first.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause where pauses grow.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Two servers that dial each other must not keep meeting.
const JITTER_MAX_MS: u64 = 100;
/// How long the other side may take to show that it took a connection.
const PROOF_MAX: Duration = Duration::from_secs(10);

/// A configured server that is dialled, for the pool or for an account.
pub(super) struct Dial {
    url: RouteUrl,
    account: Option<String>,
    /// Ends it.
    stop: watch::Sender<bool>,
}

/// Dials all configured servers, for the pool and for each account with connections of its own, where that is not being done yet. Must
/// be called within the runtime.
pub(super) fn keep_configured(core: &Arc<Core>) {
    let mut dials = core.dials.lock();
    // Under the lock: who stops dials comes after this, and stops what is begun here for options that do not hold any more.
    let options = core.options.load_full();
    for url in &options.cluster.routes {
        let accounts = options.accounts.iter().cloned().map(Some);
        for account in std::iter::once(None).chain(accounts) {
            let is_this = |dial: &Dial| dial.url == *url && dial.account == account;
            if dials.iter().any(is_this) {
                continue;
            }
            let stop = watch::Sender::new(false);
            let mut stopped = stop.subscribe();
            let aim = Aim {
                url: url.clone(),
                configured: true,
                account: account.clone(),
                gossip_mode: 0,
            };
            let core = Arc::clone(core);
            tokio::spawn(async move {
                tokio::select! {
                    () = keep(core, aim) => {}
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                }
            });
            dials.push(Dial {
                url: url.clone(),
                account,
                stop,
            });
        }
    }
}

/// Dials no more what these options do not name.
pub(super) fn stop_unwanted(core: &Core, options: &RouteOptions) {
    core.dials.lock().retain(|dial| {
        let is_wanted = options.dials(&dial.url, dial.account.as_deref());
        if !is_wanted {
            dial.stop.send_replace(true);
        }
        is_wanted
    });
}

/// Dials a server that another one told of, unless that is being done.
pub(super) fn keep_unless_kept(core: &Arc<Core>, aim: Aim, server_id: String) {
    let key = (server_id, aim.account.clone());
    if !core.dialling.lock().insert(key.clone()) {
        return;
    }
    let core = Arc::clone(core);
    tokio::spawn(async move {
        keep(Arc::clone(&core), aim).await;
        core.dialling.lock().remove(&key);
    });
}

async fn keep(core: Arc<Core>, aim: Aim) {
    let mut stop = core.stop.subscribe();
    tokio::select! {
        () = dial_again_and_again(&core, &aim) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

async fn dial_again_and_again(core: &Arc<Core>, aim: &Aim) {
    let mut server_id: Option<String> = None;
    let mut attempts = 0u64;
    let mut was_connected = false;
    let mut pause = PAUSE;
    loop {
        if let Some(known) = &server_id {
            let pause = match wait_for_room(core, known, aim).await {
                Room::Left => PAUSE,
                Room::Free => Duration::ZERO,
            };
            tokio::time::sleep(pause + jitter() / 4).await;
        }
        let failed = match handshake::dial(core, aim).await {
            Ok(session) => {
                attempts = 0;
                was_connected = true;
                pause = PAUSE;
                server_id = Some(session.connection().remote.server_id.clone());
                let mut proven = session.connection().proven.subscribe();
                let client = Arc::clone(session.connection().client());
                tokio::spawn(session.run());
                // The next connection of a pool only when the other side took this one.
                let was_taken = tokio::select! {
                    proven = proven.wait_for(|proven| *proven) => proven.is_ok(),
                    _ = client.outbox().wait_for_close() => false,
                    () = tokio::time::sleep(PROOF_MAX) => true,
                };
                if !was_taken {
                    tokio::time::sleep(jitter() + pause_after_refusal(aim)).await;
                }
                continue;
            }
            Err(RouteError::OneSelf) => {
                tracing::debug!(
                    "Detected route to self, ignoring \"{}:{}\"",
                    aim.url.host,
                    aim.url.port
                );
                return;
            }
            Err(RouteError::NoPlace {
                reason: NoPlace::Duplicate,
                server_id: found,
            }) => {
                if aim.configured {
                    let table = core.table.lock();
                    table.note_configured(&found, aim.account.as_deref(), &aim.url);
                }
                server_id = Some(found);
                tokio::time::sleep(jitter()).await;
                continue;
            }
            Err(RouteError::Changed) => {
                tokio::time::sleep(jitter()).await;
                continue;
            }
            Err(RouteError::NoPlace {
                reason: reason @ NoPlace::NotPossible(_),
                server_id: found,
            }) => {
                tracing::debug!("{reason}");
                // It may be another server the next time.
                if !aim.configured {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
                wait_until_gone(core, &found).await;
                continue;
            }
            Err(RouteError::Leaving) => return,
            Err(error) => error,
        };
        attempts += 1;
        let options = core.options.load_full();
        let wants_proof = wants_proof(&options, &failed);
        let hint = match wants_proof {
            true => {
                "; it may want an OCSP staple, which is not shown when dialling: it has to dial this server"
            }
            false => "",
        };
        let text = format!(
            "Error trying to connect to route (attempt {attempts}) {}:{}: {failed}{hint}",
            aim.url.host, aim.url.port
        );
        let reports = options.dial_reports;
        let every = match was_connected {
            true => reports.reconnect_every,
            false => reports.connect_every,
        };
        if attempts == 1 || attempts.is_multiple_of(u64::from(every)) {
            tracing::error!("{text}");
        } else {
            tracing::debug!("{text}");
        }
        if !aim.configured && attempts > u64::from(options.cluster.connect_retries) {
            return;
        }
        let this_pause = match wants_proof {
            true => PAUSE_MAX,
            false => pause,
        };
        tokio::time::sleep(this_pause + jitter()).await;
        if options.cluster.connect_backoff {
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Whether the other side does not take our certificate without a proof; it will not the next time either.
fn wants_proof(options: &RouteOptions, failed: &RouteError) -> bool {
    let tls = options.tls.as_ref();
    match failed {
        RouteError::Talk(TalkError::Failed(error)) => {
            tls.is_some_and(|tls| tls.mutual.is_asked_for_proof(error))
        }
        _ => false,
    }
}

fn pause_after_refusal(aim: &Aim) -> Duration {
    match aim.configured {
        true => PAUSE,
        false => PAUSE / 10,
    }
}

#[derive(PartialEq, Eq)]
enum Room {
    /// A connection is missing.
    Free,
    /// The server has gone.
    Left,
}

/// Waits until a connection with that server is missing.
async fn wait_for_room(core: &Core, server_id: &str, aim: &Aim) -> Room {
    loop {
        let mut changes = core.changes.subscribe();
        {
            let table = core.table.lock();
            if !table.knows(server_id) {
                return Room::Left;
            }
            if !table.is_complete(server_id, aim.account.as_deref()) {
                return Room::Free;
            }
        }
        // The sender lives as long as the core.
        let _ = changes.changed().await;
    }
}

/// Waits until no connection with that server is left.
async fn wait_until_gone(core: &Core, server_id: &str) {
    loop {
        // Before the look, so that no change is missed in between.
        let mut changes = core.changes.subscribe();
        if !core.table.lock().knows(server_id) {
            return;
        }
        let _ = changes.changed().await;
    }
}

fn jitter() -> Duration {
    use std::hash::{BuildHasher, RandomState};
    Duration::from_millis(RandomState::new().hash_one(0u8) % JITTER_MAX_MS)
}
