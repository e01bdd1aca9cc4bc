//! Where we differ from the reference on purpose, or where the reference differs from itself.
//!
//! One such place is not drawn at all (`scenario.rs`), since all that follows differs: where a message that waits for its ack leaves the stream, the
//! reference takes it for acknowledged, and under `all` and flow control everything before it, too. A stream that keeps by interest or as a work
//! queue loses those messages. Ours wait on.

/// One kind of difference.
pub struct Accepted {
    /// The kind of the step, or nothing for all.
    pub kind: &'static str,
    /// The line that tells it; `*` stands for anything.
    pub difference: &'static str,
    /// Why it is not mended.
    #[allow(dead_code, reason = "it is for readers of the list")]
    pub reason: &'static str,
}

/// All of them.
pub const ACCEPTED: &[Accepted] = &[
    Accepted {
        kind: "",
        difference: "state.num_deleted: recorded 1, now absent",
        reason: "the reference finds a deleted message 0 in a stream that never had one",
    },
    Accepted {
        kind: "",
        difference: "state.deleted: recorded [0], now absent",
        reason: "the same",
    },
    Accepted {
        kind: "consumer reset",
        difference: "message: recorded nothing, now reply () \"\" *consumer not found*",
        reason: "the reference's consumers listen for it themselves, so that nobody answers for one that is not there",
    },
    Accepted {
        kind: "consumer reset",
        difference: "message: recorded nothing, now reply () \"\" *invalid JSON*",
        reason: "the same",
    },
    Accepted {
        kind: "consumer reset",
        difference: "message: recorded reply () \"NATS/1.0 503*, now nothing",
        reason: "the same",
    },
    Accepted {
        kind: "ack",
        difference: "message: recorded reply () \"NATS/1.0 503*, now nothing",
        reason: "a stream listens for the acks of all its consumers, so that acks of one that is gone, or that wants none, have a listener",
    },
    Accepted {
        kind: "",
        difference: "state.first_seq: recorded 1, now 0",
        reason: "an empty stream of the reference that was searched for messages without interest begins at 1: when it was changed to keep by interest, or lost a consumer",
    },
    Accepted {
        kind: "",
        difference: "config.republish.dest: recorded \">\", now \"\"",
        reason: "an update of the reference makes a republish that names no destination one to every subject, which would store what it sends for ever",
    },
    Accepted {
        kind: "stream names",
        difference: "total: recorded 1, now 0",
        reason: "the reference finds subjects that are not valid in patterns that end before the fault; ours are in no stream",
    },
    Accepted {
        kind: "stream names",
        difference: "streams: recorded [*], now null",
        reason: "the same",
    },
    Accepted {
        kind: "",
        difference: "reply subject: recorded \"$JS.FC.*\", now \"$JS.FC.*\"",
        reason: "flow control subjects are random",
    },
    Accepted {
        kind: "direct get",
        difference: "headers: recorded \"NATS/1.0 404 No Results*, now \"NATS/1.0\\r\\nNats-Stream: *",
        reason: "the reference's stores in files find nothing up to a sequence that is beyond the last one, and those in memory all",
    },
    Accepted {
        kind: "direct get",
        difference: "message: recorded nothing, now reply () \"NATS/1.0 204 EOB | *Nats-UpTo-Sequence: *",
        reason: "the same",
    },
    Accepted {
        kind: "direct get",
        difference: "payload: recorded \"\", now \"x*",
        reason: "the same",
    },
    Accepted {
        kind: "stream create",
        difference: "error.err_code: recorded 10058, now 10047",
        reason: "of a stream that is there the reference does not ask for room where the request names no storage; both refuse",
    },
    Accepted {
        kind: "stream create",
        difference: "error.code: recorded 400, now 500",
        reason: "the same",
    },
    Accepted {
        kind: "stream create",
        difference: "error.description: recorded \"stream name already in use with a different configuration\", now \"insufficient storage resources available\"",
        reason: "the same",
    },
    Accepted {
        kind: "look",
        difference: "ack_floor.last_active: recorded *, now absent",
        reason: "in a stream that was changed to keep by interest the reference notes that time for consumers without acks, too",
    },
];
