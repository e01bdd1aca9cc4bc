//! What a server of a cluster does as long as it runs: follows the state, looks who leads, tells and hears what others lead, gives replicas elsewhere what they lack, and is
//! known as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft::group::Channel;
use tokio::sync::watch;

use super::super::meta::{Command, PeerProfile};
use super::advisories::Advisories;
use super::follower::Follower;
use super::kinds::{FETCH, LEADS};
use super::meta_machine::MetaMachine;
use super::replicated::Replicated;
use super::reports::Reporter;
use super::stream::fetch::slice_asked_for;
use super::stream::outstanding::Outstanding;
use super::view::View;
use super::{currency, leaders};
use crate::cluster::link::{Links, Request};

/// How often a server that the meta group does not know as it is says so again.
const PROFILE_INTERVAL: Duration = Duration::from_millis(100);
/// How often a server looks again at what it has to do, while something is left to do.
const FOLLOW_PAUSE: Duration = Duration::from_millis(20);
/// How often a server looks who leads.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The others are told again what a server leads after so many looks.
const REPORT_LOOKS: u32 = 40;
/// The same when accounts with limits hold another amount than they were told.
const USAGE_LOOKS: u32 = 5;
/// How long a question to the meta leader may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(4);

/// Follows the meta layer's state as it changes.
pub(super) async fn follow(machine: Arc<MetaMachine>, links: Arc<Links>, follower: Arc<Follower>) {
    let (mut changes, mut roles) = (machine.changes(), machine.roles());
    let mut goal = None;
    let mut current = false;
    let mut applied = 0;
    loop {
        if !current && goal.is_none() {
            goal = currency::goal(&machine, &links).await;
        }
        let meta = Arc::clone(&changes.borrow_and_update());
        roles.borrow_and_update();
        if meta.applied() < applied {
            // The group was left, and is joined again: what is known begins anew.
            (goal, current) = (None, false);
        }
        applied = meta.applied();
        current |= goal.is_some_and(|goal| meta.applied() >= goal);
        let (working, known) = (Arc::clone(&follower), current);
        let worked = tokio::task::spawn_blocking(move || working.follow(&meta, known));
        let left = match worked.await {
            Ok(left) => left,
            Err(error) => {
                tracing::error!("Following the JetStream meta group failed: {error}");
                true
            }
        };
        let again = tokio::time::sleep(FOLLOW_PAUSE);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = roles.changed() => if changed.is_err() { return },
            () = follower.looks_again.notified() => {}
            () = follower.landed.decided() => {}
            () = again, if left || !current => {}
        }
    }
}

/// Looks who leads the streams that have a replica here, and tells the others what this server leads.
pub(super) async fn look_who_leads(
    machine: Arc<MetaMachine>,
    follower: Arc<Follower>,
    advisories: Arc<Advisories>,
) {
    let own: Arc<str> = Arc::from(follower.own());
    let connected = Arc::clone(&follower.replicated.view.links);
    let mut links = connected.changes();
    let mut quiet_for = 0;
    let mut resting = BTreeSet::new();
    let mut held = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let looked = follower.replicated.look(&own);
        for (group, reason) in &looked.spoilt {
            follower.repair(*group, reason);
        }
        for (group, unsupported) in looked.unsupported {
            follower.show_stopped(group, unsupported);
        }
        follower.end_repairs(&machine.meta());
        let stalled = advisories.stalled(&looked.leaderless);
        let changed = looked.changed;
        if changed || !stalled.is_empty() {
            let (working, meta) = (Arc::clone(&follower), machine.meta());
            let advisories = Arc::clone(&advisories);
            // What is asked of shards is waited for elsewhere.
            drop(tokio::task::spawn_blocking(move || {
                if changed {
                    working.configure_led(&meta, &looked.began);
                    advisories.begin_to_lead(&meta, &looked.began);
                }
                advisories.lose_quorum(&meta, &stalled);
            }));
        }
        quiet_for += 1;
        let linked = links.has_changed().unwrap_or(false);
        let now_resting = follower.view.resting();
        let rests = resting != now_resting;
        resting = now_resting;
        let uses = quiet_for >= USAGE_LOOKS && held != follower.view.held();
        if !changed && !linked && !rests && !uses && quiet_for < REPORT_LOOKS {
            continue;
        }
        links.borrow_and_update();
        quiet_for = 0;
        let report = follower.view.report();
        let pieces = leaders::encode(&report);
        held = report.held;
        for server in connected.connected() {
            let (links, pieces) = (Arc::clone(&connected), pieces.clone());
            follower.runtime.spawn(async move {
                for piece in pieces {
                    let to = &server;
                    let told = links.request(to, Channel::Control, LEADS, piece, QUESTION_TIMEOUT);
                    // Told again with the next report.
                    let _ = told.await;
                }
            });
        }
    }
}

/// Hears what other servers lead.
pub(super) fn hear_who_leads(links: &Links, view: &Arc<View>) {
    let view = Arc::downgrade(view);
    let heard = move |request: Request| {
        let (Some(view), Ok(report)) = (view.upgrade(), leaders::decode(request.body)) else {
            return request.responder.refuse("malformed");
        };
        view.heard(&request.from, report);
        request.responder.answer(Bytes::new());
    };
    links.handle(LEADS, Arc::new(heard));
}

/// Answers replicas elsewhere that lack what is here.
pub(super) fn give_what_is_lacked(
    links: &Links,
    replicated: &Arc<Replicated>,
    bytes_max: u64,
    runtime: &tokio::runtime::Handle,
) {
    let (sources, runtime) = (Arc::clone(&replicated.replicas.sources), runtime.clone());
    let outstanding = Arc::new(Outstanding::new(bytes_max));
    let asked = move |request: Request| {
        let (sources, outstanding) = (Arc::clone(&sources), Arc::clone(&outstanding));
        runtime.spawn(async move {
            if let Some((group, bytes)) = slice_asked_for(&request.body) {
                let asker = (Arc::clone(&request.from), group);
                let within = request.deadline.saturating_duration_since(Instant::now());
                if let Err(crowded) = outstanding.admit(asker, bytes, within).await {
                    return request.responder.refuse(crowded.to_string());
                }
            }
            request.responder.answer(sources.answer(request.body).await);
        });
    };
    links.handle(FETCH, Arc::new(asked));
}

/// Has the meta group know this server as it is.
pub(super) async fn be_known(mut told: watch::Receiver<PeerProfile>, reporter: Arc<Reporter>) {
    let (mut changes, mut roles) = (reporter.machine.changes(), reporter.machine.roles());
    loop {
        let known = Arc::clone(&changes.borrow_and_update());
        roles.borrow_and_update();
        let profile = told.borrow_and_update().clone();
        let peer = known.peers().get(&profile.server);
        let unknown = peer.is_some_and(|peer| peer.profile != profile);
        if unknown {
            let command = Command::PeerPut {
                profile: profile.clone(),
                renew: false,
            };
            if let Err(error) = reporter.report(&command).await {
                tracing::debug!("The meta group does not know this server as it is: {error}");
            }
        }
        let again = tokio::time::sleep(PROFILE_INTERVAL);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = roles.changed() => if changed.is_err() { return },
            changed = told.changed() => if changed.is_err() { return },
            () = again, if unknown => {}
        }
    }
}
