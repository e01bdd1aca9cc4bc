//! Servers of one cluster, and raw peers on the cluster port.

mod common;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use common::{Server, ServerOptions, Wire, eventually, http_get};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::Value;

/// Connections between two servers: a pool of three and the system account's own.
const ROUTES_EACH: u64 = 4;
const QUIET: Duration = Duration::from_millis(300);

/// A server of a cluster that dials `seeds`; `block` is in its `cluster` block, `beside` next to it.
fn member(name: &str, seeds: &[&Server], block: &str, beside: &str) -> Server {
    let routes: Vec<_> = seeds
        .iter()
        .map(|seed| format!("'nats-route://u:p@127.0.0.1:{}'", route_port(seed)))
        .collect();
    let config = format!(
        "server_name: {name}\ncluster {{ name: c, listen: '127.0.0.1:-1', routes: [{}]\n{block} }}\n{beside}",
        routes.join(", ")
    );
    ServerOptions::default()
        .config(&config)
        .monitoring()
        .start()
}

fn route_port(server: &Server) -> u16 {
    let line = server.wait_for_log("Listening for route connections on");
    line.rsplit(':').next().unwrap().trim().parse().unwrap()
}

fn route_address(server: &Server) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, route_port(server)).into()
}

fn routez(server: &Server) -> Value {
    let answer = http_get(server.monitor_address(), "/routez").unwrap();
    serde_json::from_str(&answer.body).unwrap()
}

#[track_caller]
fn wait_for_routes(server: &Server, count: u64) {
    eventually("all routes stand", || {
        (routez(server)["num_routes"] == count).then_some(())
    });
}

fn pair(block: &str, beside: &str) -> (Server, Server) {
    let one = member("one", &[], block, beside);
    let two = member("two", &[&one], block, beside);
    wait_for_routes(&one, ROUTES_EACH);
    wait_for_routes(&two, ROUTES_EACH);
    (one, two)
}

fn client(server: &Server) -> Wire {
    Wire::ready(
        server.address(),
        r#"{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}"#,
    )
}

/// Publishes until the listener has heard of it: interest takes a moment to get around.
#[track_caller]
fn reaches(publisher: &mut Wire, listener: &mut Wire, subject: &str) {
    eventually("a message gets through", || {
        publisher.send(format!("PUB {subject} 5\r\nready\r\n"));
        listener
            .read_until(Duration::from_millis(100), |bytes, _| {
                bytes.windows(5).any(|window| window == b"ready")
            })
            .then_some(())
    });
    publisher.round_trip();
    listener.settle(QUIET);
    listener.take();
}

fn count(wire: &mut Wire, text: &str) -> usize {
    wire.settle(QUIET);
    wire.take_text().matches(text).count()
}

#[test]
fn a_message_reaches_listeners_on_another_server_once_and_no_longer_than_they_listen() {
    let (one, two) = pair("", "");
    let (mut publisher, mut listener) = (client(&one), client(&two));
    listener.send("SUB orders.* 1\r\nSUB orders.new 2\r\nPING\r\n");
    reaches(&mut publisher, &mut listener, "orders.new");
    publisher
        .send("PUB orders.new 5\r\nhello\r\nHPUB orders.old r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n");
    listener.settle(QUIET);
    let heard = listener.take_text();
    assert!(heard.contains("MSG orders.new 1 5\r\nhello\r\n"), "{heard}");
    assert!(heard.contains("MSG orders.new 2 5\r\nhello\r\n"), "{heard}");
    assert!(
        heard.contains("HMSG orders.old 1 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"),
        "{heard}"
    );
    assert_eq!(heard.matches("MSG ").count(), 3, "{heard}");
    listener.send("UNSUB 1\r\nUNSUB 2\r\n");
    listener.round_trip();
    eventually("nobody listens any more", || {
        publisher.send("SUB inbox 9\r\nPUB orders.new inbox 0\r\n\r\n");
        publisher.round_trip().contains("503").then_some(())
    });
}

#[test]
fn large_messages_of_many_sizes_arrive_as_they_were_sent() {
    for block in [
        "compression: off",
        "compression: s2_best",
        "compression: s2_auto",
    ] {
        let (one, two) = pair(block, "");
        let (mut publisher, mut listener) = (client(&one), client(&two));
        listener.send("SUB big 1\r\n");
        reaches(&mut publisher, &mut listener, "big");
        for size in [0, 1, 4096, 5000, 70_000, 1 << 20] {
            let payload: String = (0..size)
                .map(|at| char::from(b'a' + (at / 100 % 26) as u8))
                .collect();
            publisher.send(format!("PUB big {size}\r\n{payload}\r\n"));
            listener.expect(&format!("MSG big 1 {size}\r\n{payload}\r\n"));
        }
        let mode = routez(&one)["routes"][0]["compression"].clone();
        match block {
            "compression: off" => assert_eq!(mode, "off"),
            "compression: s2_best" => assert_eq!(mode, "s2_best"),
            _ => assert!(mode.as_str().unwrap().starts_with("s2_"), "{mode}"),
        }
    }
}

#[test]
fn a_queue_group_gets_a_message_once_in_the_whole_cluster_and_here_first() {
    let one = member("one", &[], "", "");
    let two = member("two", &[&one], "", "");
    let three = member("three", &[&one], "", "");
    for server in [&one, &two, &three] {
        // Two and three have heard of each other.
        wait_for_routes(server, 2 * ROUTES_EACH);
    }
    let mut publisher = client(&one);
    let (mut second, mut third) = (client(&two), client(&three));
    second.send("SUB work workers 1\r\nSUB second workers 2\r\n");
    third.send("SUB work workers 1\r\nSUB third workers 2\r\n");
    reaches(&mut publisher, &mut second, "second");
    reaches(&mut publisher, &mut third, "third");
    for _ in 0..100 {
        publisher.send("PUB work 3\r\njob\r\n");
    }
    publisher.round_trip();
    let (at_second, at_third) = (
        count(&mut second, "MSG work"),
        count(&mut third, "MSG work"),
    );
    assert_eq!(at_second + at_third, 100);
    assert!(at_second > 0 && at_third > 0, "{at_second} and {at_third}");
    let mut local = client(&one);
    local.send("SUB work workers 1\r\n");
    local.round_trip();
    for _ in 0..100 {
        publisher.send("PUB work 3\r\njob\r\n");
    }
    publisher.round_trip();
    assert_eq!(count(&mut local, "MSG work"), 100);
    assert_eq!(
        count(&mut second, "MSG work") + count(&mut third, "MSG work"),
        0
    );
}

#[test]
fn a_request_is_answered_by_another_server_or_by_nobody() {
    let (one, two) = pair("", "");
    let (mut asker, mut responder) = (client(&one), client(&two));
    asker.send("SUB inbox.1 7\r\nPUB help inbox.1 0\r\n\r\n");
    assert!(asker.round_trip().contains("HMSG inbox.1 7"));
    responder.send("SUB help 1\r\n");
    reaches(&mut asker, &mut responder, "help");
    asker.send("PUB help inbox.1 2\r\nme\r\n");
    responder.expect("MSG help 1 inbox.1 2\r\nme\r\n");
    responder.send("PUB inbox.1 3\r\nyes\r\n");
    let answer = asker.expect("MSG inbox.1 7 3\r\nyes\r\n");
    assert!(!answer.contains("503"), "{answer}");
}

#[test]
fn accounts_stay_apart_over_pools_and_routes_of_their_own() {
    let accounts = "accounts { A { users: [{user: a, password: p}] }, B { users: [{user: b, password: p}] }, \
                    C { users: [{user: c, password: p}] } }";
    let one = member("one", &[], "accounts: [C]", accounts);
    let two = member("two", &[&one], "accounts: [C]", accounts);
    wait_for_routes(&one, ROUTES_EACH + 1);
    let login = |server: &Server, user: &str| {
        let options = format!(r#"{{"verbose":false,"user":"{user}","pass":"p"}}"#);
        Wire::ready(server.address(), &options)
    };
    let users = ["a", "b", "c"];
    let mut listeners = users.map(|user| login(&two, user));
    for listener in &mut listeners {
        listener.send("SUB x.> 1\r\n");
    }
    for (at, user) in users.iter().enumerate() {
        let mut publisher = login(&one, user);
        reaches(&mut publisher, &mut listeners[at], "x.warm");
        publisher.send(format!("PUB x.{user} 1\r\n{user}\r\n"));
        listeners[at].expect(&format!("MSG x.{user} 1 1\r\n{user}\r\n"));
    }
    for listener in &mut listeners {
        assert_eq!(count(listener, "MSG"), 0);
    }
    let names: Vec<_> = routez(&one)["routes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|route| route["account"].as_str().map(str::to_owned))
        .collect();
    assert!(
        names.contains(&"C".to_owned()) && names.contains(&"$SYS".to_owned()),
        "{names:?}"
    );
}

#[test]
fn clients_are_told_where_else_they_can_connect_and_a_server_that_comes_back_is_found() {
    let one = member("one", &[], "", "");
    let mut two = member("two", &[&one], "", "");
    wait_for_routes(&two, ROUTES_EACH);
    let address = two.address().to_string();
    let mut client_of_one = client(&one);
    let told = eventually("clients are told", || {
        let told = Wire::connect(one.address()).expect("\r\n");
        told.contains(&address).then_some(told)
    });
    assert!(told.contains(r#""cluster":"c""#), "{told}");
    two.stop();
    client_of_one.expect("INFO ");
    wait_for_routes(&one, 0);
    two.start_again();
    wait_for_routes(&one, ROUTES_EACH);
    wait_for_routes(&two, ROUTES_EACH);
    let mut listener = client(&two);
    listener.send("SUB again 1\r\n");
    reaches(&mut client_of_one, &mut listener, "again");
}

#[test]
fn servers_dial_each_other_at_once_and_keep_one_set_of_connections() {
    let free = || {
        TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    };
    let ports = [free(), free(), free()];
    let servers: Vec<_> = ports
        .iter()
        .enumerate()
        .map(|(at, port)| {
            // Its own address is among them: it finds out.
            let routes = ports
                .map(|port| format!("nats://127.0.0.1:{port}"))
                .join("','");
            let config = format!(
                "server_name: s{at}\ncluster {{ listen: '127.0.0.1:{port}', routes: ['{routes}'] }}"
            );
            ServerOptions::default()
                .config(&config)
                .monitoring()
                .start()
        })
        .collect();
    for server in &servers {
        wait_for_routes(server, 2 * ROUTES_EACH);
    }
    // A name that nobody chose is one that all have agreed on.
    let name = |server: &Server| {
        let answer = http_get(server.monitor_address(), "/varz").unwrap();
        let varz: Value = serde_json::from_str(&answer.body).unwrap();
        (varz["cluster"]["name"].clone(), varz["remotes"].clone())
    };
    let names: Vec<_> = servers.iter().map(name).collect();
    assert!(names.iter().all(|found| *found == names[0]), "{names:?}");
    assert_eq!(names[0].1, 2);
}

#[test]
fn who_is_of_another_cluster_or_has_no_password_is_turned_away() {
    let one = member("one", &[], "authorization { user: u, password: p }", "");
    let two = member("two", &[&one], "", "");
    wait_for_routes(&two, ROUTES_EACH);
    let greet = |connect: &str| {
        let mut peer = Wire::connect(route_address(&one));
        peer.expect("\r\n");
        peer.send(format!("CONNECT {connect}\r\n"));
        peer.expect_closed()
    };
    let refused = greet(r#"{"name":"NX","cluster":"c","user":"u","pass":"wrong"}"#);
    assert!(
        refused.contains("-ERR 'Authorization Violation'"),
        "{refused}"
    );
    let refused = greet(r#"{"name":"NX","cluster":"d","user":"u","pass":"p"}"#);
    assert!(refused.contains("does not match"), "{refused}");
    let refused = greet(r#"{"name":"x","lang":"go","user":"u","pass":"p"}"#);
    assert!(
        refused.contains("attempted to connect to route port"),
        "{refused}"
    );
    let mut peer = Wire::connect(route_address(&one));
    peer.send("GET / HTTP/1.1\r\n\r\n");
    peer.expect_closed();
    wait_for_routes(&one, ROUTES_EACH);
}

#[test]
fn interest_that_permissions_hold_back_is_neither_asked_for_nor_given() {
    let block = "permissions { import: { allow: ['in.>'] }, export: { allow: ['in.>', 'out.>'], deny: ['out.secret'] } }";
    let one = member("one", &[], block, "");
    let two = member("two", &[&one], "", "");
    wait_for_routes(&one, ROUTES_EACH);
    let (mut first, mut second) = (client(&one), client(&two));
    second.send("SUB in.x 1\r\nSUB out.* 2\r\nSUB other 3\r\n");
    reaches(&mut first, &mut second, "in.x");
    first.send("PUB other 1\r\n1\r\nPUB out.secret 1\r\n2\r\nPUB out.open 1\r\n3\r\n");
    second.settle(QUIET);
    let heard = second.take_text();
    assert!(heard.contains("MSG out.open 2 1\r\n3\r\n"), "{heard}");
    assert_eq!(heard.matches("MSG ").count(), 1, "{heard}");
    first.send("SUB outside 1\r\nSUB in.y 2\r\n");
    reaches(&mut second, &mut first, "in.y");
    second.send("SUB inbox 9\r\nPUB outside inbox 1\r\n4\r\n");
    assert!(second.round_trip().contains("503"));
    assert_eq!(count(&mut first, "MSG outside"), 0);
}

/// A peer that speaks the form without pools.
fn old_peer(server: &Server, id: &str) -> Wire {
    let mut peer = Wire::connect(route_address(server));
    let greeting = peer.expect("\r\n");
    assert!(
        greeting.starts_with("INFO {") && greeting.contains(r#""links""#)
            || greeting.contains("route_pool_size")
    );
    peer.send(format!(
        "CONNECT {{\"echo\":true,\"verbose\":false,\"name\":\"{id}\",\"cluster\":\"c\",\"headers\":true}}\r\n\
         INFO {{\"server_id\":\"{id}\",\"server_name\":\"{id}\",\"host\":\"127.0.0.1\",\"port\":1,\"headers\":true,\"cluster\":\"c\",\"proto\":1}}\r\n"
    ));
    peer.expect("PING\r\n");
    peer.send("PONG\r\n");
    peer
}

/// What the second of two peers listens to is shown with its connection.
#[track_caller]
fn check_lists(server: &Server) {
    let shown = |query: &str| {
        let answer = http_get(server.monitor_address(), &format!("/routez?{query}")).unwrap();
        let routez: Value = serde_json::from_str(&answer.body).unwrap();
        let routes = routez["routes"].as_array().unwrap().clone();
        let of_other = routes
            .into_iter()
            .find(|route| route["remote_id"] == "NPEER2");
        of_other.unwrap()
    };
    let names = &shown("subs=true")["subscriptions_list"];
    let mut names: Vec<_> = names
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    names.sort_unstable();
    assert_eq!(names, [r#""here""#, r#""jobs""#, r#""there""#]);
    let details = &shown("subs=detail")["subscriptions_list_detail"];
    let mut details = details.as_array().unwrap().iter();
    assert!(details.any(|one| one["subject"] == "jobs" && one["qgroup"] == "workers"));
    assert_eq!(shown("")["subscriptions_list"], Value::Null);
}

#[test]
fn a_raw_peer_hears_of_interest_and_messages_make_one_hop() {
    let server = member("one", &[], "", "");
    let mut listener = client(&server);
    listener.send("SUB here 1\r\nSUB jobs workers 2\r\nSUB jobs workers 3\r\n");
    listener.round_trip();
    let mut peer = old_peer(&server, "NPEER1");
    let mut other = old_peer(&server, "NPEER2");
    peer.send("PING\r\n");
    let told = peer.expect("PONG\r\n");
    assert!(told.contains("RS+ $G here\r\n"), "{told}");
    assert!(told.contains("RS+ $G jobs workers 2\r\n"), "{told}");
    assert!(!told.contains("$SYS.REQ.USER.INFO"), "{told}");
    other.send("RS+ $G here\r\nRS+ $G there\r\nRS+ $G jobs workers 5\r\n");
    other.round_trip();
    other.settle(QUIET);
    other.take();
    // Groups that are not named get nothing, and nothing goes on to the other server.
    peer.send(
        "RMSG $G here 2\r\nhi\r\nRMSG $G jobs 2\r\nno\r\nRMSG $G jobs + r workers 3\r\nyes\r\n",
    );
    peer.send("RMSG $G there 1\r\nx\r\nRMSG UNKNOWN here 1\r\nx\r\n");
    listener.expect("MSG here 1 2\r\nhi\r\n");
    listener.expect("yes\r\n");
    assert_eq!(count(&mut listener, "MSG"), 0);
    assert_eq!(count(&mut other, "RMSG"), 0);
    let mut publisher = client(&server);
    publisher.send("PUB there 1\r\nx\r\nPUB nowhere 1\r\nx\r\nPUB there r 2\r\nxy\r\n");
    other.expect("RMSG $G there 1\r\nx\r\n");
    other.expect("RMSG $G there r 2\r\nxy\r\n");
    check_lists(&server);
    listener.send("UNSUB 2\r\nUNSUB 3\r\n");
    other.expect("RS+ $G jobs workers 1\r\n");
    other.expect("RS- $G jobs workers\r\n");
    publisher.send("PUB jobs r 1\r\nj\r\n");
    other.expect("RMSG $G jobs + r workers 1\r\nj\r\n");
    other.send("RS- $G there\r\nBOGUS\r\n");
    assert!(other.expect_closed().contains("-ERR"));
}

#[test]
fn interest_in_an_account_that_comes_with_a_reload_counts_and_questions_about_it_are_answered() {
    let config = |accounts: &str| {
        format!(
            "server_name: one\ncluster {{ name: c, listen: '127.0.0.1:-1' }}\n\
             accounts {{ SYS {{ users: [ {{user: admin, password: admin}} ] }}\n{accounts} }}\n\
             system_account: SYS"
        )
    };
    let account = |name: &str| format!("{name} {{ users: [ {{user: {name}, password: pw}} ] }}\n");
    let mut server = ServerOptions::default()
        .config(&config(&account("A")))
        .monitoring()
        .start();
    let login = |user: &str, password: &str| {
        format!(r#"{{"verbose":false,"protocol":1,"user":"{user}","pass":"{password}"}}"#)
    };
    let mut peer = old_peer(&server, "NPEER1");
    peer.send("RS+ B here\r\nRS+ B jobs workers 2\r\nRS+ B over\r\nRS- B over\r\nRS+ A here\r\n");
    peer.round_trip();
    let mut reload = |accounts: String| {
        server.reload(&config(&accounts));
        server.address()
    };
    let address = reload(account("A") + &account("B"));
    let mut publisher = Wire::ready(address, &login("B", "pw"));
    publisher.send("PUB here 1\r\nx\r\nPUB over 1\r\nx\r\nPUB jobs 1\r\nj\r\n");
    publisher.round_trip();
    let came = peer.expect("RMSG B jobs | workers 1\r\nj\r\n");
    assert!(came.contains("RMSG B here 1\r\nx\r\n"), "{came}");
    assert!(!came.contains("over"), "{came}");
    let mut admin = Wire::ready(address, &login("admin", "admin"));
    admin.send("SUB answer 1\r\nPUB $SYS.REQ.ACCOUNT.B.CONNZ answer 0\r\n\r\n");
    assert!(admin.expect("num_connections").contains("MSG answer 1"));
    drop(publisher);

    // One that goes and comes back is another account; what is listened to in it is not forgotten.
    reload(account("A"));
    let address = reload(account("A") + &account("B"));
    let mut publisher = Wire::ready(address, &login("B", "pw"));
    publisher.send("PUB here 1\r\ny\r\n");
    peer.expect("RMSG B here 1\r\ny\r\n");
}

#[test]
fn a_route_is_pinged_however_busy_it_is() {
    let server = member("one", &[], "ping_interval: '200ms'", "");
    let mut peer = old_peer(&server, "NPEER1");
    for _ in 0..3 {
        eventually("a ping comes", || {
            peer.send("RMSG $G busy 1\r\nx\r\n");
            peer.read_until(Duration::from_millis(20), |bytes, _| {
                bytes.windows(6).any(|window| window == b"PING\r\n")
            })
            .then_some(())
        });
        peer.take();
        peer.send("PONG\r\n");
    }
    // Nobody answers any more, although something comes all the time.
    eventually("the connection is stale", || {
        peer.send("RMSG $G busy 1\r\nx\r\n");
        peer.read_until(Duration::from_millis(20), |bytes, closed| {
            closed
                || bytes
                    .windows(16)
                    .any(|window| window == b"Stale Connection")
        })
        .then_some(())
    });
}

#[test]
fn servers_of_one_name_have_no_routes_with_each_other() {
    let one = member("one", &[], "", "");
    let two = member("two", &[&one], "", "");
    wait_for_routes(&one, ROUTES_EACH);
    let again = member("two", &[&one], "", "");
    again.wait_for_log("Remote server has a duplicate name: \"two\"");
    // Who has another name keeps both, as in the reference.
    wait_for_routes(&one, 2 * ROUTES_EACH);
    for server in [&two, &again] {
        let routes = routez(server);
        let others = routes["routes"].as_array().expect("routes");
        assert!(!others.is_empty());
        assert!(others.iter().all(|route| route["remote_name"] == "one"));
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Signs a certificate for the loopback address and the host `name`; it and its key are files called after that.
fn sign(authority: &CertifiedIssuer<'static, KeyPair>, folder: &Path, name: &str) {
    let key = KeyPair::generate().unwrap();
    let hosts = [name.to_owned(), "127.0.0.1".to_owned()];
    let own = CertificateParams::new(hosts).unwrap();
    let own = own.signed_by(&key, authority).unwrap();
    std::fs::write(folder.join(format!("{name}.pem")), own.pem()).unwrap();
    std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

#[test]
fn routes_are_encrypted_and_ask_for_certificates() {
    let folder = tempfile::TempDir::new().unwrap();
    let authority_of_all = authority();
    std::fs::write(folder.path().join("ca.pem"), authority_of_all.pem()).unwrap();
    sign(&authority_of_all, folder.path(), "server");
    sign(&authority(), folder.path(), "stranger");
    let folder = folder.path().display();
    // Without a word about it: whoever dials has to show one, too.
    let block = |name: &str| {
        format!(
            "tls {{ cert_file: '{folder}/{name}.pem', key_file: '{folder}/{name}.key', ca_file: '{folder}/ca.pem' }}\n\
             compression: s2_fast"
        )
    };
    let (one, two) = pair(&block("server"), "");
    let (mut publisher, mut listener) = (client(&one), client(&two));
    listener.send("SUB secret 1\r\n");
    reaches(&mut publisher, &mut listener, "secret");
    let plain = member("plain", &[&one], "", "");
    let stranger = member("stranger", &[&one], &block("stranger"), "");
    for refused in [plain, stranger] {
        refused.wait_for_log("Error trying to connect to route");
        assert_eq!(routez(&refused)["num_routes"], 0);
    }
    wait_for_routes(&one, ROUTES_EACH);
}

#[test]
fn a_certificate_can_say_which_servers_belong_to_a_cluster() {
    let folder = tempfile::TempDir::new().unwrap();
    let authority = authority();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    for name in ["node.example", "localhost", "stranger.example"] {
        sign(&authority, folder.path(), name);
    }
    let folder = folder.path().display();
    let block = |name: &str, how: &str| {
        format!(
            "authorization {{ user: node.example, password: unknown }}\n\
             tls {{ cert_file: '{folder}/{name}.pem', key_file: '{folder}/{name}.key', ca_file: '{folder}/ca.pem', {how}: true }}"
        )
    };
    // The name in the certificate is the user; who has none of the credentials is let in, who has another certificate not.
    let (one, _two) = pair(&block("node.example", "verify_and_map"), "");
    let _stranger = member(
        "three",
        &[&one],
        &block("stranger.example", "verify_and_map"),
        "",
    );
    one.wait_for_log("authentication error");
    wait_for_routes(&one, ROUTES_EACH);
    drop((one, _two, _stranger));

    // The name in the certificate is one of the hosts that are dialled.
    let dials = "routes: ['nats-route://localhost:1']";
    let known = "verify_cert_and_check_known_urls";
    let one = member(
        "one",
        &[],
        &format!("{dials}\n{}", block("localhost", known)),
        "",
    );
    let _two = member("two", &[&one], &block("localhost", "verify"), "");
    wait_for_routes(&one, ROUTES_EACH);
    let _stranger = member("three", &[&one], &block("stranger.example", "verify"), "");
    one.wait_for_log("authentication error");
    wait_for_routes(&one, ROUTES_EACH);
}

#[test]
fn questions_to_all_servers_reach_all_servers() {
    let accounts = "accounts { $SYS { users: [{user: s, password: p}] } }";
    let (one, two) = pair("", accounts);
    let mut admin = Wire::ready(one.address(), r#"{"verbose":false,"user":"s","pass":"p"}"#);
    let names = [one, two].map(|server| (server, ()));
    eventually("both answer", || {
        admin.send("SUB in 1\r\nPUB $SYS.REQ.SERVER.PING.IDZ in 0\r\n\r\n");
        let heard = admin.read_until(Duration::from_millis(500), |bytes, _| {
            let text = String::from_utf8_lossy(bytes);
            text.contains(r#""name":"one""#) && text.contains(r#""name":"two""#)
        });
        heard.then_some(())
    });
    drop(names);
}

#[test]
fn a_server_that_leaves_says_so_and_links_are_refused_where_nobody_takes_them() {
    let beside = "lame_duck_duration: \"30s\", lame_duck_grace_period: \"10s\"";
    let server = member("one", &[], "", beside);
    let mut link = Wire::connect(route_address(&server));
    link.expect("\r\n");
    link.send("LINK {\"server_name\":\"x\"}\r\n");
    assert!(link.expect_closed().contains("-ERR 'Links are not taken'"));
    let mut peer = old_peer(&server, "NPEER1");
    peer.round_trip();
    let _somebody = client(&server);
    server.signal(rustix::process::Signal::USR2);
    let told = peer.expect("\"ldm\":true");
    assert!(told.contains("INFO {"), "{told}");
}
