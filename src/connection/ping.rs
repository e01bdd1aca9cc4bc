//! Pings: measuring the round trip, and finding out that a client is gone.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// The first ping of a connection comes this early, to measure the round trip.
const FIRST_PING: Duration = Duration::from_secs(2);
/// The round trip is measured again after this time even on a busy connection.
const ROUND_TRIP_AGE_MAX: Duration = Duration::from_secs(3600);

/// What is due when the ping timer fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The client was heard lately.
    Nothing,
    /// A ping is to be sent.
    Ping,
    /// Too many pings went unanswered.
    Stale,
}

#[derive(Debug)]
pub(super) struct Pings {
    interval: Duration,
    outstanding_max: u32,
    outstanding: u32,
    sent_at: Option<Instant>,
    heard_at: Instant,
    next: Instant,
}

impl Pings {
    pub(super) fn new(interval: Duration, outstanding_max: u32, now: Instant) -> Self {
        Self {
            interval,
            outstanding_max,
            outstanding: 0,
            sent_at: None,
            heard_at: now,
            next: now + interval,
        }
    }

    /// Another interval and another limit; what is due next comes no later than it would have been with them.
    pub(super) fn change(&mut self, interval: Duration, outstanding_max: u32, now: Instant) {
        self.interval = interval;
        self.outstanding_max = outstanding_max;
        self.next = self.next.min(now + interval);
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// The client has introduced itself: its first ping comes early, and not with everybody else's.
    pub(super) fn connected(&mut self, now: Instant) {
        let delay = self.interval.min(FIRST_PING);
        let jitter = RandomState::new().hash_one(0u8) % 200;
        self.next = now + delay + delay.mul_f64(jitter as f64 / 1000.0);
    }

    /// Bytes came from the client.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// A pong came; the measured round trip when it answers a ping.
    pub(super) fn pong(&mut self, now: Instant) -> Option<Duration> {
        let was_asked = self.outstanding > 0;
        self.outstanding = 0;
        self.sent_at
            .filter(|_| was_asked)
            .map(|sent_at| now.saturating_duration_since(sent_at))
    }

    /// When the client was heard last.
    pub(super) fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// The timer fired.
    pub(super) fn tick(&mut self, now: Instant) -> Due {
        self.next = now + self.interval;
        let needs_round_trip = self
            .sent_at
            .is_none_or(|sent_at| now.saturating_duration_since(sent_at) > ROUND_TRIP_AGE_MAX);
        let heard_lately = now.saturating_duration_since(self.heard_at) < self.interval;
        if heard_lately && !needs_round_trip {
            return Due::Nothing;
        }
        if self.outstanding + 1 > self.outstanding_max {
            return Due::Stale;
        }
        self.outstanding += 1;
        self.sent_at = Some(now);
        Due::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(120);

    #[test]
    fn a_client_that_never_answers_goes_stale_after_the_allowed_pings() {
        let start = Instant::now();
        let mut pings = Pings::new(INTERVAL, 2, start);
        pings.connected(start);
        assert!(pings.next() >= start + FIRST_PING && pings.next() <= start + FIRST_PING * 12 / 10);
        let mut now = pings.next();
        assert_eq!(pings.tick(now), Due::Ping);
        now += INTERVAL;
        assert_eq!(pings.tick(now), Due::Ping);
        now += INTERVAL;
        assert_eq!(pings.tick(now), Due::Stale);
    }

    #[test]
    fn a_client_that_is_heard_is_pinged_once_to_measure_the_round_trip() {
        let start = Instant::now();
        let mut pings = Pings::new(INTERVAL, 2, start);
        assert_eq!(pings.tick(start), Due::Ping);
        let round_trip = Duration::from_millis(3);
        assert_eq!(pings.pong(start + round_trip), Some(round_trip));
        assert_eq!(pings.pong(start + round_trip), None);
        let later = start + INTERVAL;
        pings.heard(later);
        assert_eq!(pings.tick(later), Due::Nothing);
        assert_eq!(pings.tick(later + INTERVAL), Due::Ping);
    }
}
