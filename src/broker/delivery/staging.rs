//! What each client of the current batch is to get.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hashbrown::HashMap;

use super::{Flow, Message, Owner};
use crate::broker::client::{Client, coarse_unix_ns};
use crate::broker::outbox::{FlushBy, Pressure, Staged};
use crate::broker::traffic::Traffic;
use crate::protocol::encode::MessageLine;

/// How many sockets a producer writes itself at the end of a batch; the rest is written by tasks of
/// their own, so that a large fan-out does not keep the producer from reading on.
const FLUSHED_BY_CALLER_MAX: usize = 64;

/// How many emptied stages are kept for the next batch.
const SPARES_MAX: usize = 16;

/// Tables for this many clients are kept even when few are touched.
const TABLE_KEPT_MAX: usize = 1024;

/// The stages of all clients that the current batch touches.
#[derive(Debug, Default)]
pub(super) struct ClientStages {
    touched: Vec<(Arc<Client>, Staged)>,
    by_client: HashMap<u64, usize>,
    /// The stage that was written last: often the next message goes to the same client.
    last: usize,
    spares: Vec<Staged>,
    bytes: usize,
}

impl ClientStages {
    /// How many bytes of messages are staged for all of them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The stage of a client.
    pub(super) fn of(&mut self, client: &Arc<Client>) -> &mut Staged {
        let is_last = self
            .touched
            .get(self.last)
            .is_some_and(|(known, _)| known.id == client.id);
        if !is_last {
            let next = self.touched.len();
            self.last = *self.by_client.entry(client.id).or_insert(next);
            if self.last == next {
                let staged = self.spares.pop().unwrap_or_default();
                self.touched.push((Arc::clone(client), staged));
            }
        }
        &mut self.touched[self.last].1
    }

    /// Stages a message for a client's subscription.
    pub(super) fn stage(&mut self, client: &Arc<Client>, sid: &[u8], message: &Message<'_>) {
        let headers = if client.has_headers() {
            message.headers
        } else {
            b""
        };
        let line = MessageLine {
            subject: message.subject,
            sid,
            reply: message.reply,
            header_bytes: headers.len(),
            total_bytes: headers.len() + message.payload.len(),
        };
        if let Some(who) = client.traced_as() {
            trace(&who, &line);
        }
        let staged = self.of(client);
        let before = staged.bytes();
        if message.is_shared() {
            share(staged, &line, headers, message);
        } else {
            staged.write(line.bytes_max() + line.total_bytes + 2, |out| {
                line.write(out);
                out.extend_from_slice(headers);
                out.extend_from_slice(message.payload);
                out.extend_from_slice(b"\r\n");
            });
        }
        staged.messages += 1;
        staged.message_bytes += line.total_bytes as u64;
        let added = staged.bytes() - before;
        self.bytes += added;
    }

    /// Stages a message for another server, behind the line that `line` writes.
    pub(super) fn stage_routed(
        &mut self,
        client: &Arc<Client>,
        headers: &[u8],
        message: &Message<'_>,
        line_bytes_max: usize,
        line: impl FnOnce(&mut Vec<u8>),
    ) {
        let total_bytes = headers.len() + message.payload.len();
        let staged = self.of(client);
        let before = staged.bytes();
        if message.is_shared() {
            staged.write(line_bytes_max, line);
            share_body(staged, headers, total_bytes, message);
        } else {
            staged.write(line_bytes_max + total_bytes + 2, |out| {
                line(out);
                out.extend_from_slice(headers);
                out.extend_from_slice(message.payload);
                out.extend_from_slice(b"\r\n");
            });
        }
        staged.messages += 1;
        staged.message_bytes += total_bytes as u64;
        let added = staged.bytes() - before;
        self.bytes += added;
    }

    /// Empties the tables, and gives back what one large fan-out made of them.
    fn forget_clients(&mut self) {
        if self.by_client.capacity() > TABLE_KEPT_MAX.max(self.by_client.len() * 8) {
            self.by_client = HashMap::new();
            self.touched = Vec::new();
        } else {
            self.by_client.clear();
        }
    }

    /// Gives back what is kept for the next batch, unless there is one.
    pub(super) fn rest(&mut self) {
        if self.touched.is_empty() {
            *self = Self::default();
        }
    }

    /// Hands everything over and lets it be written.
    pub(super) fn hand_over(&mut self, traffic: &Traffic) -> Flow {
        let mut flow = Flow::Continue;
        let (mut messages, mut bytes) = (0, 0);
        let now_ns = match self.bytes {
            0 => 0,
            _ => coarse_unix_ns(),
        };
        for (at, (client, mut staged)) in self.touched.drain(..).enumerate() {
            if staged.messages > 0 {
                client.note_activity(now_ns);
            }
            messages += staged.messages;
            bytes += staged.message_bytes;
            let flush = if at < FLUSHED_BY_CALLER_MAX {
                FlushBy::Caller
            } else {
                FlushBy::Task
            };
            let pressure = client.outbox().accept(&client, &mut staged, flush);
            if pressure == Pressure::High {
                flow = Flow::Stall(client);
            }
            if self.spares.len() < SPARES_MAX {
                self.spares.push(staged);
            }
        }
        self.forget_clients();
        self.last = 0;
        self.bytes = 0;
        if messages > 0 {
            traffic.out_messages.fetch_add(messages, Ordering::Relaxed);
            traffic.out_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        flow
    }
}

/// Logs what a client is about to hear.
#[cold]
fn trace(who: &str, line: &MessageLine<'_>) {
    let mut text = Vec::new();
    line.write(&mut text);
    let text = String::from_utf8_lossy(text.trim_ascii_end()).into_owned();
    tracing::trace!("{who} - ->> [{text}]");
}

/// Stages a message whose payload others may send too.
fn share(staged: &mut Staged, line: &MessageLine<'_>, headers: &[u8], message: &Message<'_>) {
    staged.write(line.bytes_max(), |out| line.write(out));
    share_body(staged, headers, line.total_bytes, message);
}

/// Stages what stands behind the line of such a message.
fn share_body(staged: &mut Staged, headers: &[u8], total_bytes: usize, message: &Message<'_>) {
    match message.owner {
        Owner::Frame(frame) => staged.share(tail_of(frame, total_bytes)),
        Owner::Outgoing(outgoing) => {
            if !headers.is_empty() {
                staged.write(headers.len(), |out| out.extend_from_slice(headers));
            }
            if !outgoing.payload.is_empty() {
                staged.share(outgoing.payload.clone());
            }
            staged.write(2, |out| out.extend_from_slice(b"\r\n"));
        }
        Owner::Buffer => staged.share([headers, message.payload, b"\r\n"].concat().into()),
    }
}

/// The last bytes of a frame: payload and CRLF, with or without the headers before them.
fn tail_of(frame: &Bytes, total_bytes: usize) -> Bytes {
    frame.slice(frame.len() - total_bytes - 2..)
}
