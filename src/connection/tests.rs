//! One connection, or a few, over real sockets: what is said and what comes back, byte by byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Clients;
use crate::broker::{Broker, CloseReason, Outgoing, PublishCache};
use crate::config::options::{Options, Permissions, ResponsePermission, SubjectPermission, User};
use crate::protocol::ServerInfo;

const PATIENCE: Duration = Duration::from_secs(20);
const QUIET_CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"protocol\":1}\r\n";

struct Server {
    clients: Arc<Clients>,
    address: SocketAddr,
}

impl Server {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::default();
        change(&mut options);
        let info = ServerInfo {
            server_id: "NSERVER".into(),
            ..ServerInfo::default()
        };
        let clients = Clients::new(Arc::new(Broker::new()), &options, info).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let admitting = Arc::clone(&clients);
        tokio::spawn(async move {
            while let Ok((stream, address)) = listener.accept().await {
                admitting.admit(stream, address);
            }
        });
        Self { clients, address }
    }

    /// A client that has read the greeting.
    async fn peer(&self) -> Peer {
        let mut peer = Peer {
            stream: TcpStream::connect(self.address).await.unwrap(),
        };
        assert!(
            peer.line()
                .await
                .starts_with("INFO {\"server_id\":\"NSERVER\"")
        );
        peer
    }

    /// A client that has introduced itself.
    async fn quiet(&self) -> Peer {
        let mut peer = self.peer().await;
        peer.say(QUIET_CONNECT).await;
        peer.greeted().await;
        peer
    }
}

struct Peer {
    stream: TcpStream,
}

impl Peer {
    async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let byte = timeout(PATIENCE, self.stream.read_u8()).await.unwrap();
            line.push(byte.unwrap());
        }
        String::from_utf8(line).unwrap()
    }

    /// Exactly this comes next.
    async fn hears(&mut self, expected: &str) {
        let mut bytes = vec![0; expected.len()];
        let read = timeout(PATIENCE, self.stream.read_exact(&mut bytes)).await;
        read.unwrap_or_else(|_| panic!("nothing came instead of {expected:?}"))
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }

    /// The first ping is answered with a pong and a second `INFO`.
    async fn greeted(&mut self) {
        self.say("PING\r\n").await;
        self.hears("PONG\r\n").await;
        let info = self.line().await;
        assert!(
            info.contains("\"connect_info\":true,\"remote_account\":\"$G\""),
            "{info}"
        );
        assert!(info.ends_with("} \r\n"));
    }

    /// Nothing came since the last thing that was heard.
    async fn is_in_silence(&mut self) {
        self.say("PING\r\n").await;
        self.hears("PONG\r\n").await;
    }

    /// Exactly this comes, and then the end.
    async fn is_closed_with(&mut self, expected: &str) {
        let mut rest = Vec::new();
        // A reset is an end as well: the server does not read what is said behind a violation.
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut rest))
            .await
            .expect("the connection is closed");
        assert_eq!(String::from_utf8_lossy(&rest), expected);
    }
}

#[tokio::test]
async fn what_is_published_comes_back_to_who_subscribed() {
    let server = Server::start().await;
    let mut a = server.quiet().await;
    a.say("SUB a 1\r\nPUB a 2\r\nhi\r\n").await;
    a.hears("MSG a 1 2\r\nhi\r\n").await;
    let mut b = server.quiet().await;
    b.say("HPUB a r 12 14\r\nNATS/1.0\r\n\r\nyo\r\n").await;
    a.hears("HMSG a 1 r 12 14\r\nNATS/1.0\r\n\r\nyo\r\n").await;
    a.is_in_silence().await;
    b.is_in_silence().await;
    let traffic = server.clients.broker.traffic().snapshot();
    assert_eq!((traffic.in_messages, traffic.in_bytes), (2, 16));
    assert_eq!((traffic.out_messages, traffic.out_bytes), (2, 16));
}

#[tokio::test]
async fn verbose_clients_hear_ok_before_the_message_they_caused() {
    let server = Server::start().await;
    let mut peer = server.peer().await;
    peer.say("CONNECT {\"protocol\":1}\r\n").await;
    peer.hears("+OK\r\n").await;
    peer.greeted().await;
    peer.say("SUB a 1\r\nPUB a 2\r\nhi\r\nUNSUB 1\r\nUNSUB 77\r\n")
        .await;
    peer.hears("+OK\r\n+OK\r\nMSG a 1 2\r\nhi\r\n+OK\r\n+OK\r\n")
        .await;
    peer.is_in_silence().await;
}

#[tokio::test]
async fn clients_without_authorization_need_not_introduce_themselves() {
    let server = Server::start().await;
    let mut peer = server.peer().await;
    peer.say("PING\r\nSUB a 1\r\nPUB a 1\r\nx\r\n").await;
    peer.hears("PONG\r\n+OK\r\n+OK\r\nMSG a 1 1\r\nx\r\n").await;
}

#[tokio::test]
async fn a_large_payload_arrives_whole_however_it_is_cut() {
    let server = Server::start().await;
    let mut a = server.quiet().await;
    let mut b = server.quiet().await;
    b.say("SUB big 7\r\n").await;
    b.is_in_silence().await;
    a.say("SUB big 8\r\n").await;
    let payload: String = (0..1_000_000)
        .map(|at| char::from(b'a' + (at % 26) as u8))
        .collect();
    let message = format!("PUB big {}\r\n{payload}\r\nPING\r\n", payload.len());
    for piece in message.as_bytes().chunks(77_777) {
        a.say(piece).await;
    }
    b.hears(&format!("MSG big 7 {}\r\n{payload}\r\n", payload.len()))
        .await;
    a.hears(&format!(
        "MSG big 8 {}\r\n{payload}\r\nPONG\r\n",
        payload.len()
    ))
    .await;
    for size in [4000, 4096, 4097, 5000, 20_000] {
        let payload = &payload[..size];
        a.say(format!("PUB big {size}\r\n{payload}\r\n")).await;
        b.hears(&format!("MSG big 7 {size}\r\n{payload}\r\n")).await;
        a.hears(&format!("MSG big 8 {size}\r\n{payload}\r\n")).await;
    }
}

#[tokio::test]
async fn nobody_listening_is_told_only_to_who_listens_for_the_reply() {
    let server = Server::start().await;
    let mut peer = server.quiet().await;
    peer.say("PUB nobody _INBOX.zz 1\r\nx\r\n").await;
    peer.is_in_silence().await;
    peer.say("SUB _INBOX.a 1\r\nPUB nobody _INBOX.a 1\r\nx\r\n")
        .await;
    peer.hears("HMSG _INBOX.a 1 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n")
        .await;
    peer.is_in_silence().await;
}

#[tokio::test]
async fn subscriptions_end_after_the_deliveries_they_asked_for() {
    let server = Server::start().await;
    let mut peer = server.quiet().await;
    peer.say("SUB m 1\r\nUNSUB 1 2\r\nPUB m 1\r\na\r\nPUB m 1\r\nb\r\nPUB m 1\r\nc\r\n")
        .await;
    peer.hears("MSG m 1 1\r\na\r\nMSG m 1 1\r\nb\r\n").await;
    peer.is_in_silence().await;
    peer.say("SUB m 1\r\nPUB m 1\r\na\r\nUNSUB 1 1\r\nPUB m 1\r\nb\r\n")
        .await;
    peer.hears("MSG m 1 1\r\na\r\n").await;
    peer.is_in_silence().await;
    assert_eq!(server.clients.broker.subscription_count(), 0);
}

#[tokio::test]
async fn ended_subscriptions_are_forgotten() {
    let server = Server::start().await;
    let mut peer = server.quiet().await;
    for sid in 0..1000 {
        peer.say(format!("SUB m {sid}\r\nUNSUB {sid} 1\r\nPUB m 0\r\n\r\n"))
            .await;
        peer.hears(&format!("MSG m {sid} 0\r\n\r\n")).await;
    }
    let client = server.clients.all().remove(0);
    assert!(client.subscription_count() <= 64);
}

#[tokio::test]
async fn the_first_subscription_of_a_sid_stands() {
    let server = Server::start().await;
    let mut peer = server.quiet().await;
    peer.say("SUB x 1\r\nSUB y 1\r\nPUB x 1\r\na\r\nPUB y 1\r\nb\r\n")
        .await;
    peer.hears("MSG x 1 1\r\na\r\n").await;
    peer.is_in_silence().await;
}

#[tokio::test]
async fn clients_that_want_no_echo_hear_only_others() {
    let server = Server::start().await;
    let mut a = server.peer().await;
    a.say("CONNECT {\"verbose\":false,\"echo\":false,\"protocol\":1}\r\n")
        .await;
    a.greeted().await;
    a.say("SUB e 1\r\nPUB e 1\r\nx\r\n").await;
    a.is_in_silence().await;
    let mut b = server.quiet().await;
    b.say("PUB e 1\r\ny\r\n").await;
    a.hears("MSG e 1 1\r\ny\r\n").await;
}

#[tokio::test]
async fn violations_close_with_their_words_or_without_any() {
    let server = Server::start().await;
    let unknown = "-ERR 'Unknown Protocol Operation'\r\n";
    let long = format!("SUB {} 1\r\n", "a".repeat(5000));
    for (said, heard) in [
        ("FOO bar\r\n", unknown),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", unknown),
        ("UNSUB\r\n", unknown),
        ("MSG a 1 1\r\nx\r\n", unknown),
        ("RS+ $G a\r\n", unknown),
        ("LS+ a\r\n", unknown),
        ("A+ $G\r\n", unknown),
        ("PUB a 1\r\nxx\r\nPING\r\n", unknown),
        ("PUB a 1048577\r\n", "-ERR 'Maximum Payload Violation'\r\n"),
        (&long, "-ERR 'maximum control line exceeded'\r\n"),
        ("HPUB h 14 12\r\nNATS/1.0\r\n\r\n\r\n", ""),
        ("PUB a\r\nx\r\n", ""),
        ("PUB a abc\r\nx\r\n", ""),
        ("PUB a -1\r\n", ""),
        ("PUB a 99999999999999\r\n", ""),
        ("SUB a\r\n", ""),
        ("SUB a b c d\r\n", ""),
        ("-ERR 'x'\r\n", ""),
        ("CONNECT {nope}\r\nPING\r\n", ""),
    ] {
        let mut peer = server.quiet().await;
        peer.say(said).await;
        peer.is_closed_with(heard).await;
    }
    for (said, heard) in [
        (
            "CONNECT {\"protocol\":7}\r\nPING\r\n",
            "-ERR 'invalid client protocol'\r\n",
        ),
        (
            "CONNECT {\"verbose\":false,\"no_responders\":true,\"headers\":false}\r\nPING\r\n",
            "-ERR 'no responders requires headers support'\r\n",
        ),
        (
            "CONNECT {\"verbose\":false}\r\nHPUB h 12 12\r\nNATS/1.0\r\n\r\n\r\n",
            "",
        ),
    ] {
        let mut peer = server.peer().await;
        peer.say(said).await;
        peer.is_closed_with(heard).await;
    }
}

#[tokio::test]
async fn bad_subjects_are_refused_and_the_connection_stays() {
    let server = Server::start().await;
    let mut peer = server.quiet().await;
    for subject in ["a..b", ".a", "a.", "a.>.b"] {
        peer.say(format!("SUB {subject} 1\r\n")).await;
        peer.hears("-ERR 'Invalid Subject'\r\n").await;
    }
    peer.say("SUB a*b 5\r\nPUB a..b 1\r\nx\r\nPUB a.* 1\r\nx\r\n")
        .await;
    peer.is_in_silence().await;
    peer.say("CONNECT {\"pedantic\":true}\r\nPUB a.* 1\r\nx\r\n")
        .await;
    peer.hears("-ERR 'Invalid Publish Subject'\r\n").await;
    for reply in ["$JS.ACK.x", "_GR_.x", "_R_.x"] {
        peer.say(format!("PUB a {reply} 1\r\nx\r\n")).await;
        peer.hears(&format!(
            "-ERR 'Permissions Violation for Publish with Reply of \"{reply}\"'\r\n"
        ))
        .await;
    }
    peer.is_in_silence().await;
}

#[tokio::test]
async fn a_second_connect_starts_over_without_a_second_info() {
    let server = Server::start().await;
    let mut peer = server.quiet().await;
    peer.say("SUB a 1\r\n").await;
    peer.say(QUIET_CONNECT).await;
    peer.say("PUB a 1\r\nx\r\n").await;
    peer.is_in_silence().await;
}

#[tokio::test]
async fn an_ended_connection_leaves_no_subscription_behind() {
    let server = Server::start().await;
    let mut peer = server.quiet().await;
    peer.say("SUB a 1\r\nSUB b.> q 2\r\n").await;
    peer.is_in_silence().await;
    assert_eq!(server.clients.broker.subscription_count(), 2);
    drop(peer);
    server
        .clients
        .close_all(CloseReason::ServerShutdown, PATIENCE)
        .await;
    assert_eq!(server.clients.broker.subscription_count(), 0);
    assert_eq!(server.clients.connected_count(), 0);
}

#[tokio::test]
async fn closing_the_server_sends_what_still_waits() {
    let server = Server::start().await;
    let mut peer = server.quiet().await;
    peer.say("SUB a 1\r\n").await;
    peer.is_in_silence().await;
    let broker = &server.clients.broker;
    let outgoing = Outgoing {
        subject: "a".into(),
        payload: vec![b'x'; 300_000].into(),
        ..Outgoing::default()
    };
    let messages = vec![outgoing; 10];
    broker.publish(broker.global(), &messages, &mut PublishCache::new());
    let (_, ()) = tokio::join!(
        server
            .clients
            .close_all(CloseReason::ServerShutdown, PATIENCE),
        async {
            for _ in 0..10 {
                peer.hears(&format!("MSG a 1 300000\r\n{}\r\n", "x".repeat(300_000)))
                    .await;
            }
            peer.is_closed_with("").await;
        }
    );
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_its_publisher_goes_on() {
    let server = Server::with(|options| options.limits.pending_bytes_max = 1 << 20).await;
    let mut slow = server.quiet().await;
    slow.say("SUB a 1\r\n").await;
    slow.is_in_silence().await;
    let mut fast = server.quiet().await;
    let burst = format!("PUB a 1000\r\n{}\r\n", "x".repeat(1000)).repeat(1000);
    while server.clients.broker.traffic().snapshot().slow_consumers == 0 {
        fast.say(&burst).await;
        fast.is_in_silence().await;
    }
    fast.is_in_silence().await;
    timeout(PATIENCE, async {
        while server.clients.connected_count() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(server.clients.broker.subscription_count(), 0);
}

#[tokio::test]
async fn the_server_admits_no_more_than_it_may() {
    let server = Server::with(|options| options.limits.connections_max = Some(1)).await;
    let _first = server.quiet().await;
    let mut second = server.peer().await;
    second
        .is_closed_with("-ERR 'maximum connections exceeded'\r\n")
        .await;
}

#[tokio::test]
async fn a_client_holds_no_more_subscriptions_than_it_may() {
    let server = Server::with(|options| {
        options.limits.subscriptions_max = Some(2);
        options.limits.subscription_tokens_max = Some(3);
    })
    .await;
    let mut peer = server.quiet().await;
    peer.say("SUB a.b.c.d 1\r\n").await;
    peer.hears("-ERR 'Permissions Violation for Subscription to \"a.b.c.d\", too many tokens'\r\n")
        .await;
    peer.say("SUB a 1\r\nSUB b 2\r\nSUB c 3\r\n").await;
    peer.hears("-ERR 'maximum subscriptions exceeded'\r\n")
        .await;
    peer.say("UNSUB 1\r\nSUB c 3\r\n").await;
    peer.is_in_silence().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_says_who_it_is_is_closed() {
    let server = Server::with(|options| options.authorization.token = Some("t".into())).await;
    let mut peer = server.peer().await;
    peer.is_closed_with("-ERR 'Authentication Timeout'\r\n")
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_pings_is_stale() {
    let server = Server::with(|options| {
        options.timing.ping_interval = Duration::from_secs(4);
    })
    .await;
    let mut peer = server.peer().await;
    peer.say("CONNECT {\"verbose\":false}\r\n").await;
    peer.is_closed_with("PING\r\nPING\r\n-ERR 'Stale Connection'\r\n")
        .await;
    assert_eq!(
        server.clients.broker.traffic().snapshot().stale_connections,
        1
    );
}

fn list(patterns: &[&str]) -> Vec<String> {
    patterns
        .iter()
        .map(|pattern| (*pattern).to_owned())
        .collect()
}

/// The users of the recorded permissions.
async fn server_with_users() -> Server {
    let user = |name: &str, permissions| User {
        name: name.into(),
        password: name.into(),
        permissions: Some(permissions),
    };
    let subjects = |allow: Option<&[&str]>, deny: &[&str]| {
        Some(SubjectPermission {
            allow: allow.map(list),
            deny: list(deny),
        })
    };
    let a = Permissions {
        publish: subjects(Some(&["ok.>", "req"]), &["ok.no"]),
        subscribe: subjects(Some(&["ok.>", "_INBOX.>", "q.* g1"]), &["ok.secret"]),
        responses: None,
    };
    let r = Permissions {
        publish: subjects(None, &[">"]),
        subscribe: subjects(Some(&["req"]), &[]),
        responses: Some(ResponsePermission {
            replies_max: Some(1),
            expires: Some(Duration::from_secs(60)),
        }),
    };
    Server::with(|options| options.authorization.users = vec![user("a", a), user("r", r)]).await
}

async fn log_in(server: &Server, user: &str) -> Peer {
    let mut peer = server.peer().await;
    peer.say(format!(
        "CONNECT {{\"headers\":true,\"protocol\":1,\"user\":\"{user}\",\"pass\":\"{user}\"}}\r\n"
    ))
    .await;
    peer.hears("+OK\r\n").await;
    peer.greeted().await;
    peer
}

#[tokio::test]
async fn who_does_not_say_who_it_is_may_do_nothing() {
    let server = server_with_users().await;
    for said in [
        "CONNECT {\"user\":\"a\",\"pass\":\"b\"}\r\nPING\r\n",
        "CONNECT {}\r\nPING\r\n",
        "SUB a 1\r\n",
        "PING\r\n",
        "GET / HTTP/1.1\r\n",
        "CONNECT {\"user\":\"a\",\"pass\":\"a\",\"account\":\"X\",\"new_account\":true}\r\n",
        "CONNECT {\"auth_token\":\"zz\"}\r\n",
    ] {
        let mut peer = server.peer().await;
        peer.say(said).await;
        peer.is_closed_with("-ERR 'Authorization Violation'\r\n")
            .await;
    }
}

#[tokio::test]
async fn users_publish_and_subscribe_where_they_may() {
    let server = server_with_users().await;
    let mut peer = log_in(&server, "a").await;
    for (said, heard) in [
        ("PUB ok.no 1\r\nx\r\n", "Publish to \"ok.no\""),
        ("PUB other 1\r\nx\r\n", "Publish to \"other\""),
        ("SUB ok.secret 1\r\n", "Subscription to \"ok.secret\""),
        ("SUB other 2\r\n", "Subscription to \"other\""),
        ("SUB > 3\r\n", "Subscription to \">\""),
        (
            "SUB q.1 g2 4\r\n",
            "Subscription to \"q.1\" using queue \"g2\"",
        ),
        (
            "SUB ok.x _sys_ 4\r\n",
            "Subscription to \"ok.x\" using queue \"_sys_\"",
        ),
    ] {
        peer.say(said).await;
        peer.hears(&format!("-ERR 'Permissions Violation for {heard}'\r\n"))
            .await;
    }
    peer.say("SUB q.1 g1 5\r\nSUB ok.> 6\r\nPUB ok.x 1\r\nx\r\n")
        .await;
    peer.hears("+OK\r\n+OK\r\n+OK\r\nMSG ok.x 6 1\r\nx\r\n")
        .await;
    peer.is_in_silence().await;
}

#[tokio::test]
async fn a_responder_may_answer_what_it_was_asked_and_nothing_else() {
    let server = server_with_users().await;
    let mut responder = log_in(&server, "r").await;
    responder.say("SUB req 1\r\nPUB _INBOX.x 1\r\nx\r\n").await;
    let refused = "-ERR 'Permissions Violation for Publish to \"_INBOX.x\"'\r\n";
    responder.hears(&format!("+OK\r\n{refused}")).await;
    let mut requester = log_in(&server, "a").await;
    requester
        .say("SUB _INBOX.x 1\r\nPUB req _INBOX.x 1\r\n?\r\n")
        .await;
    requester.hears("+OK\r\n+OK\r\n").await;
    responder.hears("MSG req 1 _INBOX.x 1\r\n?\r\n").await;
    responder
        .say("PUB _INBOX.x 1\r\n!\r\nPUB _INBOX.x 1\r\n!\r\n")
        .await;
    responder.hears(&format!("+OK\r\n{refused}")).await;
    requester.hears("MSG _INBOX.x 1 1\r\n!\r\n").await;
    requester.is_in_silence().await;
}

#[tokio::test]
async fn hashed_passwords_are_checked_and_what_follows_is_not_lost() {
    let hash = bcrypt::hash("secret", 4).unwrap();
    let server = Server::with(|options| options.authorization.token = Some(hash)).await;
    let mut peer = server.peer().await;
    peer.say(
        "CONNECT {\"verbose\":false,\"auth_token\":\"secret\"}\r\nSUB a 1\r\nPUB a 1\r\nx\r\n",
    )
    .await;
    peer.hears("MSG a 1 1\r\nx\r\n").await;
    let mut peer = server.peer().await;
    peer.say("CONNECT {\"verbose\":false,\"auth_token\":\"wrong\"}\r\n")
        .await;
    peer.is_closed_with("-ERR 'Authorization Violation'\r\n")
        .await;
}
