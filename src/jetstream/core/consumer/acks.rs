//! Acks: what they settle, and what happens to messages whose acks do not come.

use std::cmp::Reverse;

use bytes::Bytes;

use super::progress::Place;
use super::{Consumer, Turn};
use crate::jetstream::core::ack::{AckKind, AckSubject};
use crate::jetstream::core::draft::Waiting;
use crate::jetstream::core::effects::Advisory;
use crate::jetstream::core::entry::Op;
use crate::jetstream::types::{AckPolicy, Retention};

/// What became of an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is logged by this operation.
    Logged(u32),
    /// It had been settled before.
    Before,
    /// It settles nothing.
    Unlogged,
    /// It is about nothing that was delivered; there is no answer.
    Ignored,
}

impl Consumer {
    /// Handles an ack; says whether there may be something to deliver now. A `+NXT` body is answered by the caller.
    pub(crate) fn ack(
        &mut self,
        subject: &AckSubject<'_>,
        kind: &AckKind,
        reply: Bytes,
        turn: &mut Turn<'_>,
    ) -> bool {
        if self.live.is_none() {
            return false;
        }
        let (consumer_sequence, stream_sequence) =
            (subject.consumer_sequence, subject.stream_sequence);
        let settled = match kind {
            AckKind::Ack | AckKind::Next(_) => {
                self.sample(subject, turn);
                self.settle(consumer_sequence, stream_sequence, turn)
            }
            AckKind::Terminate(reason) => {
                let settled = self.settle(consumer_sequence, stream_sequence, turn);
                if settled != Settled::Ignored {
                    turn.effects.advisories.push(Advisory::Terminated {
                        consumer: self.name.clone(),
                        consumer_sequence,
                        stream_sequence,
                        deliveries: subject.deliveries,
                        reason: reason.clone(),
                    });
                }
                settled
            }
            AckKind::Nak(delay_ns) => {
                self.nak(subject, *delay_ns, turn);
                Settled::Unlogged
            }
            AckKind::Progress => {
                self.touch(stream_sequence, turn.now_ns, turn);
                Settled::Unlogged
            }
            AckKind::Unknown => Settled::Unlogged,
        };
        let answers = !reply.is_empty() && stream_sequence > 0 && !matches!(kind, AckKind::Next(_));
        match settled {
            Settled::Logged(operation) if answers => {
                turn.draft.urgent = true;
                turn.draft.wait(operation, Waiting::Confirmed { reply });
            }
            // What settled it before may itself be on its way to the log still.
            Settled::Before if answers => turn.confirmations.push(reply),
            Settled::Unlogged if answers => turn.effects.confirm(reply),
            _ => {}
        }
        true
    }

    /// Lets the world hear how long an ack took, now and then.
    fn sample(&self, subject: &AckSubject<'_>, turn: &mut Turn<'_>) {
        let percent = self.rules.sample_percent;
        if percent == 0 || self.rules.ack != AckPolicy::Explicit {
            return;
        }
        let pending = self.live.as_deref().map(|live| &live.progress.pending);
        let waited = pending.and_then(|pending| pending.get(&subject.stream_sequence));
        let is_chosen = percent >= 100 || turn.world.random() % 100 <= percent;
        if let Some(waited) = waited.filter(|_| is_chosen) {
            turn.effects.advisories.push(Advisory::Acknowledged {
                consumer: self.name.clone(),
                consumer_sequence: subject.consumer_sequence,
                stream_sequence: subject.stream_sequence,
                deliveries: subject.deliveries,
                ack_time_ns: turn.now_ns.saturating_sub(waited.time_ns),
            });
        }
    }

    /// Settles a message, and under `all` everything before it.
    pub(super) fn settle(
        &mut self,
        consumer_sequence: u64,
        stream_sequence: u64,
        turn: &mut Turn<'_>,
    ) -> Settled {
        let policy = self.rules.ack;
        let Some(live) = self.live.as_deref_mut() else {
            return Settled::Ignored;
        };
        if stream_sequence == 0
            || (stream_sequence > live.progress.delivered.stream && !self.rules.flow_control)
        {
            return Settled::Ignored;
        }
        let settled = match policy {
            AckPolicy::None if turn.retention == Retention::Limits => return Settled::Ignored,
            AckPolicy::None => return Settled::Before,
            AckPolicy::Explicit => {
                live.redeliver.remove(&stream_sequence);
                let known = live.progress.redelivered.contains_key(&stream_sequence);
                live.progress.ack_one(stream_sequence, turn.now_ns) || known
            }
            // It would be logged behind the reset, and undo it.
            AckPolicy::All | AckPolicy::FlowControl if live.resets > 0 => return Settled::Ignored,
            AckPolicy::All | AckPolicy::FlowControl => {
                let place = Place {
                    consumer: consumer_sequence,
                    stream: stream_sequence,
                };
                live.redeliver = live
                    .redeliver
                    .split_off(&(stream_sequence.saturating_add(1)));
                live.progress.ack_upto(place, turn.now_ns).is_some()
            }
        };
        if !settled {
            return Settled::Before;
        }
        let op = Op::Acked {
            id: self.id,
            consumer_sequence,
            stream_sequence,
        };
        let operation = turn.draft.entry.operations();
        if turn.retention == Retention::Limits {
            turn.draft.push_lazy(&op, turn.now_ns);
        } else {
            turn.draft.push(&op);
        }
        Settled::Logged(operation)
    }

    fn nak(&mut self, subject: &AckSubject<'_>, delay_ns: Option<i64>, turn: &mut Turn<'_>) {
        let sequence = subject.stream_sequence;
        let Some(live) = self.live.as_deref_mut() else {
            return;
        };
        let progress = &live.progress;
        // Under `all` a message may be pending that was delivered before one of a lower sequence was delivered again: the floor of deliveries says nothing of it.
        if subject.consumer_sequence > progress.delivered.consumer
            || !progress.pending.contains_key(&sequence)
        {
            return;
        }
        turn.effects.advisories.push(Advisory::Naked {
            consumer: self.name.clone(),
            consumer_sequence: subject.consumer_sequence,
            stream_sequence: sequence,
            deliveries: subject.deliveries,
        });
        match delay_ns {
            Some(delay_ns) => {
                live.redeliver.remove(&sequence);
                let times = live
                    .progress
                    .redelivered
                    .get(&sequence)
                    .copied()
                    .unwrap_or(0);
                let wait_ns = self.rules.wait_ns(times);
                let from_ns = turn.now_ns.saturating_add(delay_ns).saturating_sub(wait_ns);
                self.touch(sequence, from_ns, turn);
            }
            None => {
                live.redeliver.insert(sequence);
            }
        }
    }

    /// The ack of a message is waited for from `from_ns` on.
    fn touch(&mut self, sequence: u64, from_ns: i64, turn: &mut Turn<'_>) {
        let Some(live) = self.live.as_deref_mut() else {
            return;
        };
        if !live.progress.touch(sequence, from_ns) {
            return;
        }
        live.expect_ack(&self.rules, sequence);
        let op = Op::Touched {
            id: self.id,
            stream_sequence: sequence,
            time_ns: from_ns,
        };
        turn.draft.push_lazy(&op, turn.now_ns);
    }

    /// Queues what was not acknowledged in time for redelivery.
    pub(crate) fn check_acks(&mut self, turn: &mut Turn<'_>) {
        let mut overdue = Vec::new();
        {
            let Some(live) = self.live.as_deref_mut() else {
                return;
            };
            while let Some(Reverse((due_ns, sequence))) = live.due.peek().copied() {
                if due_ns > turn.now_ns {
                    break;
                }
                live.due.pop();
                let Some(pending) = live.progress.pending.get_mut(&sequence) else {
                    continue;
                };
                let times = live
                    .progress
                    .redelivered
                    .get(&sequence)
                    .copied()
                    .unwrap_or(0);
                let really_due_ns = pending.time_ns.saturating_add(self.rules.wait_ns(times));
                if really_due_ns > turn.now_ns {
                    live.due.push(Reverse((really_due_ns, sequence)));
                } else if !live.redeliver.contains(&sequence) {
                    overdue.push((sequence, times + 1));
                }
            }
        }
        for (sequence, deliveries) in overdue {
            if self.rules.deliver_max.is_some_and(|max| deliveries >= max) {
                self.exhaust(sequence, deliveries, turn);
                continue;
            }
            if let Some(live) = self.live.as_deref_mut() {
                live.redeliver.insert(sequence);
            }
        }
    }
}
