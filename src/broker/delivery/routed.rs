//! Messages to other servers, and from them.

use std::sync::Arc;

use super::cache::Found;
use super::crossing::Way;
use super::staging::ClientStages;
use super::{Delivery, Message, Owner, Stage, next_below};
use crate::broker::account::Account;
use crate::broker::route::RouteMatches;
use crate::broker::subscription::Target;
use crate::broker::traffic::Traffic;
use crate::protocol::route::Queues;
use crate::protocol::route::encode::RoutedLine;

/// Replies of this kind carry the subject that receivers read behind them when that is not the one they are found by.
const ACKNOWLEDGED_PREFIX: &[u8] = b"$JS.ACK.";
/// In such a reply this many dots come before a subject may be behind it.
const ACKNOWLEDGED_DOTS: usize = 8;

/// Stages a message once for each server that is to get it, and says for how many.
pub(super) fn stage(
    clients: &mut ClientStages,
    account: &Account,
    to: &[u8],
    message: &Message<'_>,
    routes: &RouteMatches,
    picked: &[(usize, usize)],
) -> u32 {
    let mut staged = 0;
    for (at, route) in routes.routes.iter().enumerate() {
        let is_picked = picked.iter().any(|(route, _)| *route == at);
        if !route.plain && !is_picked {
            continue;
        }
        let client = &route.sink.client;
        let traced = match message.trace {
            None => None,
            Some(trace) => match trace.routed(client, route.sink.traces, message.headers) {
                Some(headers) => Some(headers),
                None => continue,
            },
        };
        let message = &match &traced {
            None => *message,
            // These headers are in no frame.
            Some(headers) => Message {
                headers,
                owner: Owner::Buffer,
                ..*message
            },
        };
        let headers = match client.has_headers() {
            true => message.headers,
            false => b"",
        };
        let is_shown = message.subject != to && message.reply.starts_with(ACKNOWLEDGED_PREFIX);
        let line = RoutedLine {
            account: route.sink.names_account.then(|| account.name()),
            subject: to,
            reply: message.reply,
            shown: is_shown.then_some(message.subject),
            header_bytes: headers.len(),
            total_bytes: headers.len() + message.payload.len(),
        };
        let names = || {
            let of_route = picked.iter().filter(|(route, _)| *route == at);
            of_route.map(|(_, group)| &*routes.groups[*group].name)
        };
        let names_bytes: usize = names().map(|name| name.len() + 1).sum();
        clients.stage_routed(
            client,
            headers,
            message,
            line.bytes_max() + names_bytes,
            |out| {
                line.begin(out, is_picked);
                for name in names() {
                    RoutedLine::queue(out, name);
                }
                line.end(out);
            },
        );
        staged += 1;
    }
    staged
}

impl Delivery {
    /// Stages a message that another server sent for those who listen here, and says to how many it goes: to every plain
    /// subscription, and to one member of each of the queue groups that the other server names.
    pub fn publish_routed(
        &mut self,
        account: &Arc<Account>,
        message: &Message<'_>,
        queues: Queues<'_>,
        traffic: &Traffic,
    ) -> u32 {
        let to = message.subject;
        let (subject, reply) = shown(message);
        let message = &Message {
            subject,
            reply,
            ..*message
        };
        let Self {
            cache,
            clients,
            internals,
            random,
            renamed,
            ..
        } = self;
        let Found { matches, exits, .. } = cache.find(account, to);
        let mut stage = Stage {
            clients,
            internals,
            renamed,
            account,
            to,
            message,
            origin: None,
            is_asked: false,
        };
        let mut delivered = 0;
        for subscription in &matches.plain {
            delivered += u32::from(stage.deliver(subscription));
            if stage.clients.bytes() > super::STAGED_BYTES_MAX {
                // A slow receiver here must not hold up all that the other server sends.
                let _ = stage.clients.hand_over(traffic);
            }
        }
        for group in &matches.queues {
            if !queues.is_empty() && queues.contains(&group.name) {
                let start = next_below(random, group.members.len());
                let (later, first) = group.members.split_at(start);
                let taken = first
                    .iter()
                    .chain(later)
                    .any(|member| stage.deliver(member));
                delivered += u32::from(taken);
            }
        }
        if exits.is_empty() {
            return delivered;
        }
        // The server that a question came to has asked in other accounts already; answers to what was asked here come to an end here.
        let answers = exits
            .iter()
            .filter(|exit| matches!(exit.target, Target::Replies));
        let answers: Vec<_> = answers.cloned().collect();
        let way = Way {
            traffic,
            origin: None,
            before: None,
        };
        delivered + self.cross(account, &answers, to, message, &way)
    }
}

/// What receivers read as subject and reply.
fn shown<'a>(message: &Message<'a>) -> (&'a [u8], &'a [u8]) {
    let as_sent = (message.subject, message.reply);
    if !message.reply.starts_with(ACKNOWLEDGED_PREFIX) {
        return as_sent;
    }
    let mut dots = 0;
    let mark = message.reply.iter().position(|byte| {
        dots += usize::from(*byte == b'.');
        *byte == b'@' && dots >= ACKNOWLEDGED_DOTS
    });
    let Some(mark) = mark else {
        return as_sent;
    };
    let (reply, subject) = message.reply.split_at(mark);
    match subject.get(1..) {
        Some(subject) if !subject.is_empty() => (subject, reply),
        _ => as_sent,
    }
}
