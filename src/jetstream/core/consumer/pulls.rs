//! Pull requests: which are refused, which are answered at once, which wait.

use bytes::Bytes;

use super::{Consumer, Turn};
use crate::jetstream::core::duration;
use crate::jetstream::core::effects::Advisory;
use crate::jetstream::core::pull::PullRequest;
use crate::jetstream::core::status;
use crate::jetstream::types::PriorityPolicy;

/// A full queue is searched for what is over at most this often.
const WALK_INTERVAL_NS: i64 = 1_000_000_000;
/// The highest priority number.
const PRIORITY_MAX: i64 = 9;

impl Consumer {
    /// Takes a pull request in; `true` when it waits now.
    pub(crate) fn pull(&mut self, reply: Bytes, body: &[u8], turn: &mut Turn<'_>) -> bool {
        let refusal = match PullRequest::parse(body) {
            _ if self.rules.is_push() => "409 Consumer is push based".to_owned(),
            Err(text) => format!("400 Bad Request - {text}"),
            Ok(request) => match self.admit(&request, turn) {
                Ok(()) => return self.enqueue(reply, &request, turn),
                Err(Some(text)) => text,
                Err(None) => return false,
            },
        };
        turn.effects.outgoing.push(status::status(&reply, &refusal));
        false
    }

    /// Checks a request against limits and groups. The error is the status, if there is to be one.
    fn admit(&mut self, request: &PullRequest, turn: &mut Turn<'_>) -> Result<(), Option<String>> {
        self.check_limits(request).map_err(Some)?;
        if request.is_object {
            self.check_group(request, turn.now_ns)
                .map_err(|text| Some(text.to_owned()))?;
        }
        let now_ns = turn.now_ns;
        let (full, walked_ns) = match self.live.as_deref_mut() {
            Some(live) => {
                live.active_ns = now_ns;
                let full = live.waiting.len() >= self.rules.waiting_max;
                (full, live.waiting.walked_ns)
            }
            None => return Err(None),
        };
        if full && now_ns.saturating_sub(walked_ns) > WALK_INTERVAL_NS {
            self.walk_waiting(false, turn);
        }
        if request.no_wait {
            let pending = self.live.as_deref().map_or(0, |live| {
                live.pending_messages + live.redeliver.len() as u64
            });
            if pending == 0 && request.expires_ns == 0 {
                return Err(Some("404 No Messages".to_owned()));
            }
            if pending > 0 && pending < self.walk_waiting(false, turn) {
                return Err(Some("408 Requests Pending".to_owned()));
            }
        }
        Ok(())
    }

    fn enqueue(&mut self, reply: Bytes, request: &PullRequest, turn: &mut Turn<'_>) -> bool {
        let rules = &self.rules;
        let Some(live) = self.live.as_deref_mut() else {
            return false;
        };
        if live.waiting.len() >= rules.waiting_max {
            // A client with a heartbeat notices by itself, and would otherwise ask again at once.
            if request.idle_heartbeat_ns == 0 {
                let status = status::status(&reply, "409 Exceeded MaxWaiting");
                turn.effects.outgoing.push(status);
            }
            return false;
        }
        live.waiting
            .add(reply, request, rules.priority, turn.now_ns);
        true
    }

    fn check_limits(&self, request: &PullRequest) -> Result<(), String> {
        let rules = &self.rules;
        if let Some(max) = rules.request_batch_max
            && request.batch > max
        {
            return Err(format!("409 Exceeded MaxRequestBatch of {max}"));
        }
        if let Some(max_ns) = rules.request_expires_max_ns
            && request.expires_ns > max_ns
        {
            let max = duration::format(max_ns);
            return Err(format!("409 Exceeded MaxRequestExpires of {max}"));
        }
        if let Some(max) = rules.request_bytes_max
            && request.bytes_max > max
        {
            return Err(format!("409 Exceeded MaxRequestMaxBytes of {max}"));
        }
        Ok(())
    }

    fn check_group(&mut self, request: &PullRequest, now_ns: i64) -> Result<(), &'static str> {
        let rules = &self.rules;
        let thresholds = request.min_pending != 0 || request.min_ack_pending != 0;
        if thresholds && rules.priority != PriorityPolicy::Overflow {
            return Err("400 Bad Request - Not a Overflow Priority consumer");
        }
        if !request.id.is_empty() && rules.priority != PriorityPolicy::PinnedClient {
            return Err("400 Bad Request - Not a Pinned Client Priority consumer");
        }
        if !(0..=PRIORITY_MAX).contains(&request.priority) {
            return Err("400 Bad Request - Priority must be between 0 and 9");
        }
        if rules.priority == PriorityPolicy::None {
            return Ok(());
        }
        if request.group.is_empty() {
            return Err("400 Bad Request - Priority Group missing");
        }
        if !rules.priority_groups.contains(&request.group) {
            return Err("400 Bad Request - Invalid Priority Group");
        }
        let pin = self.live.as_deref_mut().and_then(|live| live.pin.as_mut());
        if let Some(pin) = pin {
            if request.id == pin.id {
                pin.until_ns = now_ns.saturating_add(rules.priority_timeout_ns);
            } else if !request.id.is_empty() {
                return Err("423 Nats-Pin-Id mismatch");
            }
        }
        Ok(())
    }

    /// Releases the pinned client; `false` when there is none.
    pub(crate) fn unpin(&mut self, reason: &'static str, turn: &mut Turn<'_>) -> bool {
        let pin = self.live.as_deref_mut().and_then(|live| live.pin.take());
        let Some(pin) = pin else {
            return false;
        };
        turn.effects.advisories.push(Advisory::Unpinned {
            consumer: self.name.clone(),
            group: pin.group,
            reason,
        });
        true
    }
}
