//! Pull requests that wait for messages: first come, first served, one message each in turn.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::jetstream::core::effects::{Effects, World};
use crate::jetstream::core::pull::PullRequest;
use crate::jetstream::core::status;
use crate::jetstream::types::PriorityPolicy;

/// What reply subjects begin with whose listeners are in another account.
const ACROSS_ACCOUNTS: &[u8] = b"_R_.";

/// A pull request that waits.
#[derive(Debug, Clone)]
pub(crate) struct Waiter {
    pub(crate) reply: Bytes,
    /// Messages still asked for.
    pub(crate) batch: i64,
    /// Messages it was given.
    pub(crate) delivered: u64,
    /// Bytes still asked for; 0 or less is any.
    pub(crate) bytes: i64,
    bounded_bytes: bool,
    /// 0 is never.
    expires_ns: i64,
    no_wait: bool,
    heartbeat_ns: i64,
    heartbeat_at_ns: i64,
    min_pending: i64,
    min_ack_pending: i64,
    pin: String,
    /// Whether it names a priority group: only one that does is pinned.
    has_group: bool,
    priority: i64,
    /// When its interest was last looked at.
    seen_ns: i64,
}

/// What the choice of the next request depends on.
pub(crate) struct Choice<'a> {
    pub(crate) now_ns: i64,
    pub(crate) size: i64,
    /// Messages pending, the one to be delivered included.
    pub(crate) pending: u64,
    pub(crate) ack_pending: usize,
    pub(crate) policy: PriorityPolicy,
    pub(crate) pinned: Option<&'a str>,
    pub(crate) world: &'a dyn World,
}

/// The request chosen for a message.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) reply: Bytes,
    /// Messages and bytes it still asks for after this one.
    pub(crate) batch: i64,
    pub(crate) bytes: i64,
    pub(crate) bounded_bytes: bool,
    /// Whether it claims the pin.
    pub(crate) claims_pin: bool,
}

/// The queue of waiting requests.
#[derive(Debug, Default)]
pub(crate) struct WaitQueue {
    queue: VecDeque<Waiter>,
    /// No request needs attention before this time.
    next_ns: Option<i64>,
    /// When the queue was last walked.
    pub(crate) walked_ns: i64,
}

impl WaitQueue {
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// When a request next needs attention, at the earliest.
    pub(crate) fn next_ns(&self) -> Option<i64> {
        if self.queue.is_empty() {
            None
        } else {
            self.next_ns
        }
    }

    /// Adds a request.
    pub(crate) fn add(
        &mut self,
        reply: Bytes,
        request: &PullRequest,
        policy: PriorityPolicy,
        now_ns: i64,
    ) {
        let at = |delay: i64| {
            if delay > 0 {
                now_ns.saturating_add(delay)
            } else {
                0
            }
        };
        let waiter = Waiter {
            reply,
            batch: request.batch,
            delivered: 0,
            bytes: request.bytes_max,
            bounded_bytes: request.bytes_max > 0,
            expires_ns: if request.expires_ns != 0 {
                now_ns.saturating_add(request.expires_ns)
            } else {
                0
            },
            no_wait: request.no_wait,
            heartbeat_ns: request.idle_heartbeat_ns,
            heartbeat_at_ns: at(request.idle_heartbeat_ns),
            min_pending: request.min_pending,
            min_ack_pending: request.min_ack_pending,
            pin: request.id.clone(),
            has_group: !request.group.is_empty(),
            priority: request.priority,
            seen_ns: now_ns,
        };
        self.attend(waiter.expires_ns);
        self.attend(waiter.heartbeat_at_ns);
        let place = if policy == PriorityPolicy::Prioritized {
            self.queue
                .partition_point(|other| other.priority <= waiter.priority)
        } else {
            self.queue.len()
        };
        self.queue.insert(place, waiter);
    }

    fn attend(&mut self, at_ns: i64) {
        if at_ns > 0 {
            self.next_ns = Some(self.next_ns.map_or(at_ns, |next| next.min(at_ns)));
        }
    }

    /// Takes the request that is next in turn for a message, telling those off that can no longer be served.
    pub(crate) fn choose(&mut self, choice: &Choice<'_>, effects: &mut Effects) -> Option<Chosen> {
        let mut cycled = 0;
        while cycled < self.queue.len() {
            let waiter = self.queue.front_mut()?;
            if waiter.expires_ns != 0 && choice.now_ns >= waiter.expires_ns {
                effects.outgoing.push(status::remaining(
                    &waiter.reply,
                    "408 Request Timeout",
                    waiter.batch,
                    waiter.bytes,
                ));
                self.queue.pop_front();
                continue;
            }
            let mut claims_pin = false;
            if choice.policy == PriorityPolicy::PinnedClient {
                match choice.pinned {
                    None if waiter.pin.is_empty() => claims_pin = waiter.has_group,
                    Some(pinned) if waiter.pin == pinned => {}
                    Some(_) if waiter.pin.is_empty() => {
                        self.queue.rotate_left(1);
                        cycled += 1;
                        continue;
                    }
                    _ => {
                        effects.outgoing.push(status::remaining(
                            &waiter.reply,
                            "423 Nats-Wrong-Pin-Id",
                            waiter.batch,
                            waiter.bytes,
                        ));
                        self.queue.pop_front();
                        continue;
                    }
                }
            }
            if choice.policy == PriorityPolicy::Overflow && !waiter.overflows(choice) {
                self.queue.rotate_left(1);
                cycled += 1;
                continue;
            }
            if !waiter.is_interested(choice.now_ns, choice.world) {
                // On its way through other accounts the status may still find somebody.
                if waiter.reply.starts_with(ACROSS_ACCOUNTS) {
                    effects.outgoing.push(status::remaining(
                        &waiter.reply,
                        "408 Interest Expired",
                        waiter.batch,
                        waiter.bytes,
                    ));
                }
                self.queue.pop_front();
                continue;
            }
            if waiter.bounded_bytes {
                if choice.size > waiter.bytes {
                    effects.outgoing.push(status::remaining(
                        &waiter.reply,
                        "409 Message Size Exceeds MaxBytes",
                        waiter.batch,
                        waiter.bytes,
                    ));
                    self.queue.pop_front();
                    continue;
                }
                waiter.bytes -= choice.size;
                if waiter.bytes == 0 {
                    waiter.batch = 1;
                }
            }
            return self.take(choice, claims_pin);
        }
        None
    }

    /// The request that was chosen last, and asks for more, has become the pinned one.
    pub(crate) fn pin_last(&mut self, id: &str) {
        if let Some(waiter) = self.queue.back_mut() {
            id.clone_into(&mut waiter.pin);
        }
    }

    fn take(&mut self, choice: &Choice<'_>, claims_pin: bool) -> Option<Chosen> {
        let waiter = self.queue.front_mut()?;
        waiter.batch -= 1;
        waiter.delivered += 1;
        if waiter.heartbeat_ns > 0 {
            waiter.heartbeat_at_ns = choice.now_ns.saturating_add(waiter.heartbeat_ns);
        }
        let chosen = Chosen {
            reply: waiter.reply.clone(),
            batch: waiter.batch,
            bytes: waiter.bytes,
            bounded_bytes: waiter.bounded_bytes,
            claims_pin,
        };
        if waiter.batch <= 0 {
            self.queue.pop_front();
        } else if choice.policy != PriorityPolicy::Prioritized {
            self.queue.rotate_left(1);
        }
        Some(chosen)
    }

    /// Ends what is over, sends heartbeats, and says how many messages those that remain ask for. At the end of the stream
    /// those that do not want to wait are over too.
    pub(crate) fn walk(
        &mut self,
        end_of_stream: bool,
        now_ns: i64,
        place: (u64, u64),
        world: &dyn World,
        effects: &mut Effects,
    ) -> u64 {
        self.walked_ns = now_ns;
        self.next_ns = None;
        let mut asked = 0u64;
        let mut next: Option<i64> = None;
        let mut attend = |at_ns: i64| {
            if at_ns > 0 {
                next = Some(next.map_or(at_ns, |next| next.min(at_ns)));
            }
        };
        self.queue.retain_mut(|waiter| {
            if waiter.expires_ns != 0 && now_ns >= waiter.expires_ns {
                effects.outgoing.push(status::remaining(
                    &waiter.reply,
                    "408 Request Timeout",
                    waiter.batch,
                    waiter.bytes,
                ));
                return false;
            }
            let over = waiter.expires_ns == 0 || waiter.delivered > 0;
            if end_of_stream && waiter.no_wait && over {
                effects
                    .outgoing
                    .push(status::status(&waiter.reply, "404 No Messages"));
                return false;
            }
            if !waiter.is_interested(now_ns, world) {
                return false;
            }
            asked = asked.saturating_add(waiter.batch.max(0) as u64);
            if waiter.heartbeat_at_ns > 0 {
                if now_ns >= waiter.heartbeat_at_ns {
                    let (consumer, stream) = place;
                    effects
                        .outgoing
                        .push(status::heartbeat(&waiter.reply, consumer, stream, b""));
                    waiter.heartbeat_at_ns = now_ns.saturating_add(waiter.heartbeat_ns);
                }
                attend(waiter.heartbeat_at_ns);
            }
            attend(waiter.expires_ns);
            true
        });
        self.next_ns = next;
        asked
    }

    /// Ends every request with a status.
    pub(crate) fn end_all(&mut self, text: &str, with_remaining: bool, effects: &mut Effects) {
        for waiter in self.queue.drain(..) {
            effects.outgoing.push(if with_remaining {
                status::remaining(&waiter.reply, text, waiter.batch, waiter.bytes)
            } else {
                status::status(&waiter.reply, text)
            });
        }
    }
}

impl Waiter {
    /// Whether an overflow request is to be served: without thresholds always, else when one is reached.
    fn overflows(&self, choice: &Choice<'_>) -> bool {
        let reached = |threshold: i64, value: u64| threshold > 0 && threshold as u64 <= value;
        (self.min_pending <= 0 && self.min_ack_pending <= 0)
            || reached(self.min_pending, choice.pending)
            || reached(self.min_ack_pending, choice.ack_pending as u64)
    }

    fn is_interested(&mut self, now_ns: i64, world: &dyn World) -> bool {
        if self.seen_ns == now_ns {
            return true;
        }
        let interested = world.interested(&self.reply);
        if interested {
            self.seen_ns = now_ns;
        }
        interested
    }
}
