//! Who may connect, and what each user may do.

use std::time::Duration;

use super::peer::{Peer, Server};
use crate::config::options::{Permissions, ResponsePermission, SubjectPermission, User};

#[tokio::test(start_paused = true)]
async fn a_client_that_never_says_who_it_is_is_closed() {
    let server = Server::with(|options| options.authorization.token = Some("t".into())).await;
    let mut peer = server.peer().await;
    peer.is_closed_with("-ERR 'Authentication Timeout'\r\n")
        .await;
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
        ..User::default()
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

#[tokio::test]
async fn the_user_of_those_without_credentials_need_not_introduce_itself() {
    let server = Server::with(|options| {
        options.authorization.users = vec![User {
            name: "guest".into(),
            password: "x".into(),
            permissions: Some(Permissions {
                publish: Some(SubjectPermission {
                    allow: Some(list(&["a"])),
                    deny: Vec::new(),
                }),
                ..Permissions::default()
            }),
            ..User::default()
        }];
        options.authorization.no_auth_user = Some("guest".into());
    })
    .await;
    let mut peer = server.peer().await;
    peer.say("SUB a 1\r\nPUB a 1\r\nx\r\nPUB b 1\r\nx\r\n")
        .await;
    peer.hears("+OK\r\n+OK\r\nMSG a 1 1\r\nx\r\n").await;
    peer.hears("-ERR 'Permissions Violation for Publish to \"b\"'\r\n")
        .await;
    let mut peer = server.peer().await;
    peer.say("CONNECT {\"user\":\"guest\"}\r\n").await;
    peer.is_closed_with("-ERR 'Authorization Violation'\r\n")
        .await;
}
