//! What a connection needs to know of the server's options.

use std::time::Duration;

use crate::broker::OutboxLimits;
use crate::config::options::{Options, WriteTimeout};
use crate::protocol::Rules;

/// The options of client connections.
#[derive(Debug, Clone)]
pub struct ConnectionOptions {
    /// Longest protocol line.
    pub control_line_bytes_max: usize,
    /// Largest message, headers included.
    pub payload_bytes_max: usize,
    /// What may wait for one client.
    pub pending_bytes_max: usize,
    /// Connections at one time; `None` is no limit, 0 admits nobody.
    pub connections_max: Option<u64>,
    /// Subscriptions per connection; `None` is no limit.
    pub subscriptions_max: Option<u64>,
    /// Tokens of a subscription's subject; `None` is no limit.
    pub subscription_tokens_max: Option<u8>,
    /// Unanswered pings before a connection is stale.
    pub pings_outstanding_max: u32,
    /// How long one write to a client may take.
    pub write_deadline: Duration,
    /// What happens when it takes longer.
    pub write_timeout: WriteTimeout,
    /// A publisher is not slowed down when its subscribers fall behind: they miss messages instead.
    pub no_fast_producer_stall: bool,
    /// Whether messages may carry headers.
    pub headers: bool,
    /// Whether clients may come through a proxy that says where they are.
    pub proxy_protocol: bool,
    /// Whether the protocol itself is logged.
    pub trace: bool,
    /// How much of a traced payload is shown; 0 is all.
    pub traced_message_bytes_max: usize,
    /// Of traced messages, show headers instead of payloads.
    pub trace_headers: bool,
}

impl From<&Options> for ConnectionOptions {
    fn from(options: &Options) -> Self {
        Self {
            control_line_bytes_max: options.limits.control_line_bytes_max,
            payload_bytes_max: options.limits.payload_bytes_max,
            pending_bytes_max: usize::try_from(options.limits.pending_bytes_max)
                .unwrap_or(usize::MAX),
            connections_max: options.limits.connections_max,
            subscriptions_max: options.limits.subscriptions_max,
            subscription_tokens_max: options.limits.subscription_tokens_max,
            pings_outstanding_max: options.timing.pings_outstanding_max,
            write_deadline: options.timing.write_deadline,
            write_timeout: options.timing.write_timeout.unwrap_or(WriteTimeout::Close),
            no_fast_producer_stall: options.no_fast_producer_stall,
            headers: !options.no_header_support,
            proxy_protocol: options.proxy_protocol,
            trace: options.log.trace,
            traced_message_bytes_max: options.log.traced_message_bytes_max,
            trace_headers: options.log.trace_headers,
        }
    }
}

impl ConnectionOptions {
    pub(super) fn outbox_limits(&self) -> OutboxLimits {
        OutboxLimits {
            pending_bytes_max: self.pending_bytes_max,
            write_deadline: self.write_deadline,
            write_timeout: self.write_timeout,
        }
    }

    /// The rules for a client that has not agreed on headers yet.
    pub(super) fn rules(&self) -> Rules {
        Rules {
            control_line_bytes_max: self.control_line_bytes_max,
            payload_bytes_max: self.payload_bytes_max,
            headers: false,
        }
    }
}
