//! Who may link.

use super::*;

async fn refused(node: &Node, line: &str) -> String {
    let mut peer = RawPeer::dial(node.port, line.as_bytes()).await;
    let answer = peer.line().await;
    peer.closed().await;
    answer
}

#[tokio::test]
async fn another_cluster_our_own_name_or_another_line_is_refused() {
    let a = Node::start(quick("a", 1)).await;
    let answer = refused(&a, &hello_line("b", "other", "control")).await;
    let expected = "-ERR 'cluster name \"other\" does not match \"cluster\"'";
    assert_eq!(answer, expected);
    let answer = refused(&a, &hello_line("a", "cluster", "control")).await;
    assert_eq!(answer, "-ERR 'server name \"a\" is this server's own'");
    let answer = refused(&a, &hello_line("b", "cluster", "third")).await;
    assert!(answer.starts_with("-ERR 'no LINK line"), "{answer}");
    let later = hello_line("b", "cluster", "bulk").replace("\"link\":1", "\"link\":2");
    let answer = refused(&a, &later).await;
    assert_eq!(answer, "-ERR 'link version 2 is not spoken here'");
    assert!(a.links.connected().is_empty());
}

fn wants_a_password(options: &mut LinkOptions) {
    options.authorize = Arc::new(|given| {
        given.is_some_and(|given| given.user == "route" && given.password == "secret")
    });
}

#[tokio::test]
async fn only_who_knows_the_password_is_linked() {
    let mut guarded = quick("b", 1);
    wants_a_password(&mut guarded);
    let b = Node::start(guarded).await;
    let answer = refused(&b, &hello_line("a", "cluster", "control")).await;
    assert_eq!(answer, "-ERR 'Authorization Violation'");

    let stranger = Node::start(quick("a", 1)).await;
    stranger.links.know(&[b.known()]);
    let mut known = b.known();
    known.addresses[0].credentials = Some(Credentials {
        user: "route".to_owned(),
        password: "secret".to_owned(),
    });
    let friend = Node::start(quick("c", 1)).await;
    friend.links.know(&[known]);
    friend.linked_with("b").await;
    assert!(!stranger.links.is_connected("b", Channel::Control));
    assert_eq!(b.links.connected(), [Arc::<str>::from("c")]);

    let by_cluster = Node::start(quick("d", 1)).await;
    let mut by_cluster_meets = meeting();
    by_cluster_meets.dialling.credentials = Some(Credentials {
        user: "route".to_owned(),
        password: "secret".to_owned(),
    });
    by_cluster.links.meet(by_cluster_meets);
    by_cluster.links.know(&[b.known()]);
    by_cluster.linked_with("b").await;
}

#[tokio::test]
async fn an_address_where_another_server_answers_is_not_taken_for_the_one_that_is_meant() {
    let (a, b) = (
        Node::start(quick("a", 1)).await,
        Node::start(quick("b", 1)).await,
    );
    let mistaken = KnownPeer {
        server_name: "c".to_owned(),
        addresses: b.known().addresses,
    };
    a.links.know(&[mistaken, b.known()]);
    a.linked_with("b").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!a.links.is_connected("c", Channel::Control));
}
