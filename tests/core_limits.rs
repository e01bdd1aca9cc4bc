//! What the server does not put up with, and whom it lets in.

mod common;

use std::time::Duration;

use async_nats::ConnectOptions;
use common::{Server, ServerOptions, Wire, eventually, eventually_async};

const PLAIN: &str = r#"{"verbose":false}"#;

fn with_config(text: &str) -> Server {
    ServerOptions::default().config(text).start()
}

#[test]
fn a_payload_over_the_maximum_closes_the_connection() {
    let server = with_config("max_payload: 100");
    let mut wire = Wire::connect(server.address());
    let info = wire.expect("\r\n");
    assert!(info.contains(r#""max_payload":100"#), "{info}");
    wire.send(format!(
        "CONNECT {PLAIN}\r\nPUB a 100\r\n{}\r\n",
        "x".repeat(100)
    ));
    wire.round_trip();
    wire.send(format!("PUB a 101\r\n{}\r\n", "x".repeat(101)));
    assert_eq!(wire.expect_closed(), "-ERR 'Maximum Payload Violation'\r\n");
}

#[test]
fn a_control_line_over_the_maximum_closes_the_connection() {
    let server = with_config("max_control_line: 256");
    let mut wire = Wire::ready(server.address(), PLAIN);
    wire.send(format!("SUB {} 1\r\n", "a".repeat(300)));
    let last = wire.expect_closed();
    assert!(last.contains("maximum control line exceeded"), "{last:?}");
}

#[test]
fn a_line_that_never_ends_takes_no_memory() {
    let server = Server::core();
    let mut wire = Wire::ready(server.address(), PLAIN);
    for _ in 0..64 {
        wire.send(vec![b'S'; 64 * 1024]);
        if wire.is_closed() {
            break;
        }
    }
    wire.expect_closed();
    Wire::ready(server.address(), PLAIN).round_trip();
}

#[test]
fn more_connections_than_allowed_are_turned_away() {
    let server = with_config("max_connections: 2");
    let first = Wire::ready(server.address(), PLAIN);
    let _second = Wire::ready(server.address(), PLAIN);
    let mut third = Wire::connect(server.address());
    let last = third.expect_closed();
    assert!(
        last.contains("-ERR 'maximum connections exceeded'"),
        "{last:?}"
    );
    drop(first);
    eventually("there is room again", || {
        let mut wire = Wire::connect(server.address());
        wire.send(format!("CONNECT {PLAIN}\r\nPING\r\n"));
        wire.read_until(Duration::from_secs(2), |bytes, _| {
            bytes.ends_with(b"PONG\r\n") || bytes.windows(6).any(|w| w == b"PONG\r\n")
        })
        .then_some(())
    });
}

#[test]
fn more_subscriptions_than_allowed_are_refused() {
    let server = with_config("max_subscriptions: 2");
    let mut wire = Wire::ready(server.address(), PLAIN);
    wire.send("SUB a 1\r\nSUB b 2\r\n");
    assert_eq!(wire.round_trip(), "");
    wire.send("SUB c 3\r\n");
    wire.expect("-ERR 'maximum subscriptions exceeded'\r\n");
}

#[test]
fn a_client_that_does_not_read_is_closed_and_others_are_served() {
    let server = with_config("max_pending: 1MB\nmax_payload: 1MB\nwrite_deadline: \"2s\"");
    let mut lazy = Wire::ready(server.address(), PLAIN);
    lazy.send("SUB flood 1\r\n");
    lazy.round_trip();
    let mut fast = Wire::ready(server.address(), PLAIN);
    fast.send("SUB other 1\r\n");
    let mut sender = Wire::ready(server.address(), PLAIN);
    let burst = format!("PUB flood 65536\r\n{}\r\n", "x".repeat(65_536)).repeat(16);
    // More than any socket buffer holds; nobody reads it.
    eventually("the lazy client is closed", || {
        sender.send(&burst);
        sender.round_trip();
        server.log().contains("Slow Consumer").then_some(())
    });
    sender.send("PUB other 2\r\nhi\r\n");
    fast.expect("MSG other 1 2\r\nhi\r\n");
    lazy.expect_closed();
}

#[test]
fn a_client_that_does_not_answer_pings_is_closed() {
    let server = with_config("ping_interval: \"100ms\"\nping_max: 2");
    let mut silent = Wire::ready(server.address(), PLAIN);
    let last = silent.expect_closed();
    assert!(last.contains("PING\r\n"), "{last:?}");
    assert!(last.contains("-ERR 'Stale Connection'"), "{last:?}");
}

#[test]
fn a_client_that_does_not_connect_in_time_is_closed() {
    let server = with_config("authorization { user: joe, password: secret, timeout: \"200ms\" }");
    let mut silent = Wire::connect(server.address());
    let last = silent.expect_closed();
    assert!(last.contains("-ERR 'Authentication Timeout'"), "{last:?}");
}

async fn is_let_in(server: &Server, options: ConnectOptions) -> bool {
    options.connect(server.url()).await.is_ok()
}

#[tokio::test]
async fn a_user_is_let_in_with_its_password_only() {
    let server = ServerOptions::default()
        .arguments(["--user", "joe", "--pass", "secret"])
        .start();
    let with = |user: &str, password: &str| {
        ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
    };
    assert!(is_let_in(&server, with("joe", "secret")).await);
    assert!(!is_let_in(&server, with("joe", "wrong")).await);
    assert!(!is_let_in(&server, with("ann", "secret")).await);
    assert!(!is_let_in(&server, ConnectOptions::new()).await);
}

#[tokio::test]
async fn a_token_opens_and_another_does_not() {
    let server = ServerOptions::default()
        .arguments(["--auth", "s3cr3t"])
        .start();
    let with = |token: &str| ConnectOptions::with_token(token.to_owned());
    assert!(is_let_in(&server, with("s3cr3t")).await);
    assert!(!is_let_in(&server, with("other")).await);
    assert!(!is_let_in(&server, ConnectOptions::new()).await);
}

#[tokio::test]
async fn a_password_may_be_kept_as_a_hash() {
    // "secret", with the lowest cost.
    let server = with_config(
        "authorization { user: joe, password: \"$2a$04$j49VuGvG3w2PPSqgjN6G3eT4L/kiC2tyb7kb2Gs4Dr8Q0f4MkkNJO\" }",
    );
    let with = |password: &str| {
        ConnectOptions::with_user_and_password("joe".to_owned(), password.to_owned())
    };
    assert!(is_let_in(&server, with("secret")).await);
    assert!(!is_let_in(&server, with("wrong")).await);
}

const USERS: &str = r#"
authorization {
  users: [
    { user: reader, password: r, permissions: { subscribe: "public.>", publish: { deny: ">" } } }
    { user: writer, password: w, permissions: { publish: ["public.>", "_INBOX.>"] } }
    { user: guest, password: g, permissions: { subscribe: "public.news" } }
  ]
}
no_auth_user: guest
"#;

#[tokio::test]
async fn users_do_what_their_permissions_allow() {
    let server = with_config(USERS);
    let options = |user: &str, password: &str| {
        format!(r#"{{"verbose":false,"user":"{user}","pass":"{password}"}}"#)
    };
    let mut reader = Wire::ready(server.address(), &options("reader", "r"));
    reader.send("SUB public.> 1\r\nSUB private 2\r\n");
    assert_eq!(
        reader.round_trip(),
        "-ERR 'Permissions Violation for Subscription to \"private\"'\r\n"
    );
    let mut writer = Wire::ready(server.address(), &options("writer", "w"));
    writer.send("PUB public.a 2\r\nhi\r\nPUB private 2\r\nno\r\n");
    assert_eq!(
        writer.round_trip(),
        "-ERR 'Permissions Violation for Publish to \"private\"'\r\n"
    );
    reader.expect("MSG public.a 1 2\r\nhi\r\n");
    reader.send("PUB public.a 2\r\nno\r\n");
    assert_eq!(
        reader.round_trip(),
        "-ERR 'Permissions Violation for Publish to \"public.a\"'\r\n"
    );
}

#[tokio::test]
async fn who_brings_no_credentials_is_the_configured_user() {
    let server = with_config(USERS);
    let mut guest = Wire::ready(server.address(), PLAIN);
    guest.send("SUB public.news 1\r\nSUB public.other 2\r\n");
    assert_eq!(
        guest.round_trip(),
        "-ERR 'Permissions Violation for Subscription to \"public.other\"'\r\n"
    );
}

#[tokio::test]
async fn a_client_comes_back_after_a_restart() {
    let mut server = Server::core();
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut subscriber = client.subscribe("again").await.unwrap();
    server.kill();
    server.start_again();
    eventually_async("messages flow again", async || {
        client.publish("again", "x".into()).await.unwrap();
        let soon = Duration::from_millis(100);
        let message = futures_util::StreamExt::next(&mut subscriber);
        tokio::time::timeout(soon, message).await.ok().flatten()
    })
    .await;
}
