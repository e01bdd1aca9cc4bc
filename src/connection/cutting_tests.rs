//! What a client hears depends on what it says, and never on how the network cuts it; and nothing it
//! says can make the session panic or leave something behind.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::Clients;
use super::buffer::ReadBuffer;
use super::session::{Session, Step};
use super::task::Hello;
use crate::broker::{Broker, Client, ClientInfo, CloseReason, Outbox, RoundTrip, Wire};
use crate::config::options::Options;
use crate::protocol::ConnectRequest;
use crate::protocol::ServerInfo;

#[derive(Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Wire for Heard {
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut heard = self.0.lock();
        let before = heard.len();
        for slice in slices {
            heard.extend_from_slice(slice);
        }
        Ok(heard.len() - before)
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn shutdown(&self) {}
}

/// Lets a fresh client of a fresh server say all this in these pieces. What it heard, and how it ended.
fn converse(said: &[u8], cuts: &[usize]) -> (String, Option<CloseReason>) {
    let mut options = Options::default();
    options.limits.payload_bytes_max = 8192;
    options.limits.control_line_bytes_max = 128;
    let broker = Arc::new(Broker::new());
    let clients = Clients::new(Arc::clone(&broker), &options, None, ServerInfo::default()).unwrap();
    let wire = Heard::default();
    let heard = Arc::clone(&wire.0);
    let info = ClientInfo {
        id: clients.next_id(),
        account: "$G".into(),
        user: String::new(),
        name: String::new(),
        lang: String::new(),
        version: String::new(),
        address: ([127, 0, 0, 1], 1).into(),
        started: SystemTime::UNIX_EPOCH,
        websocket: false,
        round_trip: RoundTrip::default(),
    };
    let terms = clients.terms();
    let outbox = Outbox::new(Box::new(wire), terms.options.outbox_limits());
    let client = Arc::new(Client::new(info, outbox, false));
    let hello = Hello {
        id: client.id,
        address: ([127, 0, 0, 1], 1).into(),
        entrance: terms.entrance.clone(),
        nonce: String::new(),
        preset: ConnectRequest::default(),
        peer: None,
    };
    let mut session = Session::new(clients, terms, client, hello);
    let mut buffer = ReadBuffer::new();
    let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut % (said.len() + 1)).collect();
    bounds.extend([0, said.len()]);
    bounds.sort_unstable();
    let mut ended = None;
    let mut needed = 0;
    'pieces: for piece in bounds.windows(2) {
        let piece = &said[piece[0]..piece[1]];
        buffer.for_reading(needed).extend_from_slice(piece);
        buffer.note_read(piece.len());
        loop {
            let step = session.process(&mut buffer);
            session.hand_over();
            match step {
                Step::Read { bytes_in_all } => {
                    needed = bytes_in_all;
                    break;
                }
                Step::HandOver => {}
                Step::Hash(_) => panic!("nobody has a password"),
                Step::Close(reason) => {
                    ended = Some(reason);
                    break 'pieces;
                }
            }
        }
    }
    session.end();
    assert_eq!(broker.subscription_count(), 0);
    let heard = String::from_utf8_lossy(&heard.lock()).into_owned();
    (heard, ended)
}

fn publish(subject: &str, reply: &str, size: usize) -> Vec<u8> {
    format!("PUB {subject} {reply} {size}\r\n{}\r\n", "p".repeat(size)).into_bytes()
}

fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let op = prop_oneof![
        Just(b"PING\r\n".to_vec()),
        Just(b"CONNECT {\"verbose\":false,\"headers\":true,\"protocol\":1}\r\n".to_vec()),
        Just(b"CONNECT {\"verbose\":true,\"no_responders\":true,\"headers\":true}\r\n".to_vec()),
        "SUB [ab*>]{1,2}(\\.[ab>])? [0-9]\r\n".prop_map(String::into_bytes),
        "UNSUB [0-9]( [0-3])?\r\n".prop_map(String::into_bytes),
        ("[ab](\\.[ab])?", "a?", 0usize..20).prop_map(|(s, r, size)| publish(&s, &r, size)),
        ("[ab]", 4000usize..8200).prop_map(|(s, size)| publish(&s, "", size)),
        "[ab]".prop_map(|subject| {
            format!("HPUB {subject} 12 14\r\nNATS/1.0\r\n\r\nhi\r\n").into_bytes()
        }),
    ];
    prop::collection::vec(op, 0..16).prop_map(|ops| ops.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_heard_does_not_depend_on_how_it_was_cut(
        said in conversation(),
        mutations in prop::collection::vec((any::<usize>(), any::<u8>()), 0..3),
        cuts in prop::collection::vec(any::<usize>(), 0..24),
    ) {
        let mut said = said;
        for (at, byte) in mutations {
            if !said.is_empty() {
                let at = at % said.len();
                said[at] = byte;
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        prop_assert_eq!(converse(&said, &cuts), converse(&said, &[]));
    }
}
