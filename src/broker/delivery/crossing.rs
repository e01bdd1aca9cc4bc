//! Messages that go into other accounts: questions to imported services, and the answers to them.

use std::sync::Arc;

use bytes::Bytes;

use super::{Delivery, Message, Origin, Owner};
use crate::broker::account::Account;
use crate::broker::internal::Outgoing;
use crate::broker::message_trace;
use crate::broker::message_trace::MessageTrace;
use crate::broker::sharing::{
    Asker, Awaited, Opened, REQUEST_INFO, ServiceImport, is_of_fast_batch,
};
use crate::broker::subscription::{Subscription, Target};
use crate::broker::traffic::Traffic;
use crate::protocol::{headers, trace as tracing_headers};
use crate::subject::transform::Mapped;

/// Acks keep their subject on every way, so that consumers can be used from other accounts.
const ACK_PREFIX: &[u8] = b"$JS.ACK.";
/// How many accounts one message goes through.
const ACCOUNTS_MAX: usize = 64;

/// How a message came into an account.
pub(super) struct Way<'a> {
    pub(super) traffic: &'a Traffic,
    /// The client that published it.
    pub(super) origin: Option<&'a Origin<'a>>,
    /// By which imports.
    pub(super) before: Option<&'a Crossing<'a>>,
}

/// One step from an account into another.
pub(super) struct Crossing<'a> {
    import: &'a Arc<ServiceImport>,
    /// What the header says that is written with it.
    asker: Asker<'a>,
    depth: usize,
    before: Option<&'a Crossing<'a>>,
}

impl Crossing<'_> {
    /// Whether the message has come by this import before.
    fn came_by(&self, import: &Arc<ServiceImport>) -> bool {
        let mut at = Some(self);
        while let Some(crossing) = at {
            if Arc::ptr_eq(crossing.import, import) {
                return true;
            }
            at = crossing.before;
        }
        false
    }
}

impl Delivery {
    /// Publishes a message in the other accounts that these subscriptions lead into, and says to how many receivers it went.
    #[cold]
    pub(super) fn cross(
        &mut self,
        account: &Arc<Account>,
        exits: &[Arc<Subscription>],
        to: &[u8],
        message: &Message<'_>,
        way: &Way<'_>,
    ) -> u32 {
        let mut delivered = 0;
        for exit in exits {
            delivered += match &exit.target {
                Target::Service(import) => self.ask(account, import, to, message, way),
                Target::Replies => self.answer(account, to, message, way),
                _ => 0,
            };
        }
        delivered
    }

    /// Asks in the account that exports a service.
    fn ask(
        &mut self,
        account: &Arc<Account>,
        import: &Arc<ServiceImport>,
        to: &[u8],
        message: &Message<'_>,
        way: &Way<'_>,
    ) -> u32 {
        let before = way.before;
        let depth = before.map_or(0, |before| before.depth) + 1;
        if depth > ACCOUNTS_MAX || before.is_some_and(|before| before.came_by(import)) {
            return 0;
        }
        let exporter = &import.exporter;
        let Some(subject) = self.subject_there(import, to) else {
            return 0;
        };
        let crossing = Crossing {
            import,
            asker: asker(account, import, before, message.reply),
            depth,
            before,
        };
        let mut block = message.headers.to_vec();
        let mut trace = message.trace;
        let mut reports = None;
        if let Some(noted) = trace {
            noted.imported(exporter.name(), to, &subject);
            if import.options.allow_trace {
                let opened = self.open_reports(account, import, noted, &mut block);
                reports = Some((opened, noted, noted.hops()));
            } else if noted.is_only() {
                // What others do with it is told only if they allow it.
                return 1;
            } else {
                trace = None;
                block = message_trace::disabled(&block);
            }
        }
        headers::remove(&mut block, REQUEST_INFO);
        headers::append(
            &mut block,
            REQUEST_INFO,
            &crossing.asker.describe(way.origin, &import.names()),
        );
        let opened = self.open_reply(account, exporter, message.reply, import);
        let reply = match &opened {
            Some(opened) => opened.subject.as_slice(),
            None => message.reply,
        };
        let way = Way {
            before: Some(&crossing),
            ..*way
        };
        let message = &Message { trace, ..*message };
        let delivered = with(message, to, &subject, reply, Some(block), |message| {
            self.publish_by(exporter, &subject, message, &way)
        });
        if let Some(replies) = exporter.replies() {
            // Nobody answers what is only traced.
            let is_only_traced = message.trace.is_some_and(|noted| noted.is_only());
            if (delivered == 0 || is_only_traced)
                && let Some(opened) = &opened
            {
                replies.take_back(opened);
            }
            // What happens here is in the report of this server.
            if let Some((opened, noted, hops)) = &reports
                && noted.hops() == *hops
            {
                replies.take_back(opened);
            }
        }
        delivered
    }

    /// Opens a way back for the reports of other servers: they report in the account that is asked, and to a subject of it, which the message
    /// names from here on.
    fn open_reports(
        &mut self,
        account: &Arc<Account>,
        import: &Arc<ServiceImport>,
        noted: &MessageTrace,
        block: &mut Vec<u8>,
    ) -> Opened {
        // After one import it is the way back through that.
        let destination = match headers::get(block, tracing_headers::DESTINATION) {
            Some(named) => Bytes::copy_from_slice(named),
            None => Bytes::from(noted.destination()),
        };
        let random = &mut || self.random();
        let exporter = &import.exporter;
        let opened = exporter.open_reply(account, destination, import, Awaited::Reports, random);
        headers::set(block, tracing_headers::DESTINATION, &opened.subject);
        opened
    }

    /// What the subject is in the other account, where mappings may send it elsewhere.
    fn subject_there(&mut self, import: &ServiceImport, to: &[u8]) -> Option<Vec<u8>> {
        let mut subject = Vec::new();
        if !import.options.renaming.apply(to, &mut subject) {
            return None;
        }
        let exporter = &import.exporter;
        if exporter.has_mappings() {
            let mut mapped = Vec::new();
            let random = &mut || self.random();
            match exporter.map(&subject, &import.names().cluster, random, &mut mapped) {
                Mapped::Unchanged => {}
                Mapped::To => subject = mapped,
                Mapped::Lost => return None,
            }
        }
        Some(subject)
    }

    /// Opens a way back from `asked` for the answer to this reply subject; none where there is no answer, or none that needs one.
    fn open_reply(
        &mut self,
        account: &Arc<Account>,
        asked: &Arc<Account>,
        reply: &[u8],
        import: &Arc<ServiceImport>,
    ) -> Option<Opened> {
        if reply.is_empty() || reply.starts_with(ACK_PREFIX) {
            return None;
        }
        let awaited = match is_of_fast_batch(reply) {
            true => Awaited::BatchProgress,
            false => Awaited::Answer,
        };
        let reply = Bytes::copy_from_slice(reply);
        let random = &mut || self.random();
        Some(asked.open_reply(account, reply, import, awaited, random))
    }

    /// Brings an answer, or a piece of one, to the account that asked.
    fn answer(
        &mut self,
        account: &Arc<Account>,
        to: &[u8],
        message: &Message<'_>,
        way: &Way<'_>,
    ) -> u32 {
        let Some(replies) = account.replies() else {
            return 0;
        };
        let is_only_traced = message.trace.is_some_and(|noted| noted.is_only());
        let found = match is_only_traced {
            true => replies.find(to),
            false => replies.take(to),
        };
        let Some(pending) = found else {
            return 0;
        };
        let mut block = None;
        if let Some(noted) = message.trace {
            noted.imported(pending.to.name(), to, &pending.reply);
            if is_only_traced {
                return 1;
            }
            // Who asked has not allowed to be looked at.
            block = Some(message_trace::disabled(message.headers));
        }
        let message = &Message {
            trace: None,
            ..*message
        };
        let depth = way.before.map_or(0, |before| before.depth) + 1;
        if depth > ACCOUNTS_MAX {
            return 0;
        }
        let crossing = Crossing {
            import: &pending.import,
            asker: asker(account, &pending.import, way.before, b""),
            depth,
            before: way.before,
        };
        // Who asked may be asked something in return.
        let opened = self.open_reply(account, &pending.to, message.reply, &pending.import);
        let reply = match &opened {
            Some(opened) => opened.subject.as_slice(),
            None => message.reply,
        };
        let way = Way {
            before: Some(&crossing),
            ..*way
        };
        let delivered = with(message, to, &pending.reply, reply, block, |message| {
            self.publish_by(&pending.to, &pending.reply, message, &way)
        });
        if delivered == 0
            && let (Some(opened), Some(replies)) = (&opened, pending.to.replies())
        {
            replies.take_back(opened);
        }
        if pending.has_pieces() {
            let is_last = message.headers.is_empty() && message.payload.is_empty();
            match delivered == 0 || is_last {
                true => replies.close(to),
                false => replies.prolong(to),
            }
        }
        delivered
    }
}

/// What the account that is asked next is told of who asks.
fn asker<'a>(
    account: &'a Account,
    import: &'a ServiceImport,
    before: Option<&Crossing<'a>>,
    reply: &'a [u8],
) -> Asker<'a> {
    match before {
        // Where it is may become known on the way, who it is only at the beginning.
        Some(before) => Asker {
            service: Some(account.name()),
            is_placed: before.asker.is_placed || import.tells_place(),
            ..before.asker
        },
        None => Asker {
            account: account.name(),
            service: None,
            is_shared: import.options.share,
            is_placed: import.tells_place(),
            reply: is_of_fast_batch(reply).then_some(reply),
        },
    }
}

/// The same message with another subject, reply and perhaps headers. What a stream delivers keeps its own subject.
fn with<T>(
    message: &Message<'_>,
    to: &[u8],
    subject: &[u8],
    reply: &[u8],
    block: Option<Vec<u8>>,
    then: impl FnOnce(&Message<'_>) -> T,
) -> T {
    let subject = match message.subject == to {
        true => subject,
        false => message.subject,
    };
    let (shared_headers, payload) = match message.owner {
        Owner::Buffer => {
            return then(&Message {
                subject,
                reply,
                headers: block.as_deref().unwrap_or(message.headers),
                ..*message
            });
        }
        Owner::Frame(frame) => (
            frame.slice_ref(message.headers),
            frame.slice_ref(message.payload),
        ),
        Owner::Outgoing(outgoing) => (outgoing.headers.clone(), outgoing.payload.clone()),
    };
    let outgoing = Outgoing {
        subject: Bytes::copy_from_slice(subject),
        to: Bytes::new(),
        reply: Bytes::copy_from_slice(reply),
        headers: block.map_or(shared_headers, Bytes::from),
        payload,
    };
    then(&Message {
        trace: message.trace,
        ..Message::from_outgoing(&outgoing)
    })
}
