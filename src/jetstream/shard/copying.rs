//! Copying from other streams: what a stream's slot does for its mirror or its sources.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::slot::Slot;
use crate::broker::{Inbound, InternalSubscription, InternalTarget, Outgoing};
use crate::jetstream::core::StreamReply;
use crate::jetstream::intake::{DIRECT_QUEUE, Purpose};
use crate::jetstream::sourcing::{Doings, Ear, Ground, Heard, Now, Request, Sourcing};

/// Tags of messages for origins begin here; each origin has two.
const TAGS: u64 = 1 << 32;

/// What copies, and what it listens to.
pub(super) struct Copying {
    sourcing: Sourcing,
    ears: HashMap<u64, InternalSubscription>,
    /// Direct gets of the origin.
    direct: Vec<InternalSubscription>,
}

/// Whether a message is for an origin.
pub(super) fn is_for_origin(tag: u64) -> bool {
    tag >= TAGS
}

fn tag(origin: u64, ear: Ear) -> u64 {
    TAGS + origin * 2 + u64::from(ear == Ear::Messages)
}

impl Slot {
    /// Copies while it is to, and no longer.
    pub(super) fn see_to_copying(&mut self, now_ns: i64) {
        let config = Arc::clone(self.core.config());
        let is_wanted = self.core.is_leading() && Sourcing::is_wanted(&config);
        if !is_wanted {
            if self.copying.is_some() {
                // A leader whose stream copies no more has nobody after it; one that leads no more has.
                let is_over = self.core.is_leading();
                self.copy(now_ns, |sourcing, _, _, doings| match is_over {
                    true => sourcing.leave(doings),
                    false => sourcing.end(doings),
                });
                self.copying = None;
            }
            return;
        }
        if self.copying.is_none() {
            self.copying = Some(Box::new(Copying {
                sourcing: Sourcing::new(self.account.name(), self.core.domain()),
                ears: HashMap::new(),
                direct: Vec::new(),
            }));
        }
        let copying = self.copying.as_deref();
        let is_configured = copying.is_some_and(|it| it.sourcing.is_configured(&config));
        if !is_configured {
            self.copy(now_ns, |sourcing, ground, now, doings| {
                sourcing.configure(&config, ground, now, doings);
            });
        }
        let deadline_ns = self.next_copying_ns();
        if deadline_ns.is_some_and(|at_ns| at_ns <= now_ns) {
            self.copy(now_ns, |sourcing, ground, now, doings| {
                sourcing.tick(ground, now, doings);
            });
        }
        self.answer_for_origin();
    }

    /// The stream is removed: nobody will go on with its copying.
    pub(super) fn leave_origins(&mut self) {
        let mut doings = Doings::default();
        if self.core.is_leading() {
            self.with_sourcing(|sourcing, _| sourcing.leave(&mut doings));
        }
        let requests = doings.requests.into_iter().map(into_outgoing);
        self.outgoing.extend(requests);
    }

    /// When copying next has something to do.
    pub(super) fn next_copying_ns(&self) -> Option<i64> {
        self.copying.as_deref()?.sourcing.next_deadline_ns()
    }

    /// A message for an origin.
    pub(super) fn take_from_origin(&mut self, inbound: Inbound, now_ns: i64) {
        let number = inbound.tag - TAGS;
        let (origin, ear) = match number % 2 {
            0 => (number / 2, Ear::Answers),
            _ => (number / 2, Ear::Messages),
        };
        let heard = Heard {
            subject: inbound.subject,
            reply: inbound.reply,
            headers: inbound.headers,
            payload: inbound.payload,
        };
        self.copy(now_ns, |sourcing, _, now, doings| {
            sourcing.take(origin, ear, heard, now, doings);
        });
    }

    fn copy(
        &mut self,
        now_ns: i64,
        act: impl FnOnce(&mut Sourcing, &Ground<'_>, Now, &mut Doings),
    ) {
        let now = Now {
            ns: now_ns,
            random: self.next_random(),
        };
        // First, because what follows a message that is lost must not be taken: it would leave a gap.
        self.ask_again(now);
        let mut doings = Doings::default();
        self.with_sourcing(|sourcing, ground| act(sourcing, ground, now, &mut doings));
        self.carry_out_doings(doings, now_ns);
        self.ask_again(now);
    }

    /// What is lost, or what the core could not take, is asked for again.
    fn ask_again(&mut self, now: Now) {
        loop {
            let mut doings = Doings::default();
            let (lost, refused) = self.effects.take_copying();
            if !lost && refused.is_empty() {
                return;
            }
            self.with_sourcing(|sourcing, ground| {
                if lost {
                    // What was refused came after what is stored, so that this goes back far enough.
                    return sourcing.lost(ground, now, &mut doings);
                }
                for (attempt, sequence) in refused {
                    sourcing.refused(attempt, sequence, now, &mut doings);
                }
            });
            self.carry_out_doings(doings, now.ns);
        }
    }

    /// Something became of what was handed to the core before.
    pub(super) fn copying_changed(&mut self, now_ns: i64) {
        if self.copying.is_some() {
            self.copy(now_ns, |_, _, _, _| {});
        } else {
            self.effects.take_copying();
        }
    }

    fn with_sourcing(&mut self, act: impl FnOnce(&mut Sourcing, &Ground<'_>)) {
        let ground = Ground {
            state: self.core.store().state(),
            last_sequence: self.core.last_sequence(),
            positions: self.core.source_positions(),
        };
        if let Some(copying) = self.copying.as_deref_mut() {
            act(&mut copying.sourcing, &ground);
        }
    }

    fn carry_out_doings(&mut self, doings: Doings, now_ns: i64) {
        let Doings {
            requests,
            listens,
            events,
        } = doings;
        for listen in listens {
            let tag = tag(listen.origin, listen.ear);
            let subscription = listen.subject.and_then(|subject| {
                let target: Arc<dyn InternalTarget> = Arc::new(self.port.clone());
                self.account.subscribe(&subject, None, target, tag).ok()
            });
            if let Some(copying) = self.copying.as_deref_mut() {
                copying.ears.remove(&tag);
                copying.ears.extend(subscription.map(|it| (tag, it)));
            }
        }
        for event in events {
            self.decide(event, now_ns);
        }
        let requests = requests.into_iter().map(into_outgoing);
        self.outgoing.extend(requests);
    }

    /// A mirror that has nearly all answers direct gets for its origin.
    fn answer_for_origin(&mut self) {
        let Some(copying) = self.copying.as_deref_mut() else {
            return;
        };
        let Some(origin) = copying.sourcing.answers_for() else {
            copying.direct.clear();
            return;
        };
        if !copying.direct.is_empty() {
            return;
        }
        let subjects = [
            (format!("$JS.API.DIRECT.GET.{origin}"), Purpose::Direct),
            (
                format!("$JS.API.DIRECT.GET.{origin}.>"),
                Purpose::DirectBySubject,
            ),
        ];
        for (subject, purpose) in subjects {
            let target: Arc<dyn InternalTarget> = Arc::new(self.port.clone());
            let queue = Some(DIRECT_QUEUE);
            let subscribed = self
                .account
                .subscribe(&subject, queue, target, purpose as u64);
            copying.direct.extend(subscribed.ok());
        }
    }

    /// Completes what is said of the stream by how far its origins have come.
    pub(super) fn tell_of_copying(&self, reply: &mut StreamReply, now_ns: i64) {
        let (Some(copying), StreamReply::Info { info, .. }) = (self.copying.as_deref(), reply)
        else {
            return;
        };
        info.mirror = copying.sourcing.mirror_info(now_ns);
        info.sources = copying.sourcing.source_infos(now_ns);
    }
}

fn into_outgoing(request: Request) -> Outgoing {
    let headers = match request.level {
        Some(level) => Bytes::from(format!(
            "NATS/1.0\r\nNats-Required-Api-Level: {level}\r\n\r\n"
        )),
        None => Bytes::new(),
    };
    Outgoing {
        headers,
        subject: Bytes::from(request.subject),
        reply: Bytes::from(request.reply),
        payload: request.body,
        ..Outgoing::default()
    }
}
