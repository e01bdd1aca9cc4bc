//! What a reload changes of a cluster while its servers are connected.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use common::{Server, ServerOptions, Wire, eventually, http_get};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustix::process::Signal;
use serde_json::Value;

/// Connections between two servers: a pool of three and the system account's own.
const ROUTES_EACH: u64 = 4;
const QUIET: Duration = Duration::from_millis(300);

/// A server whose configuration is made again and again.
struct Member {
    server: Server,
    name: &'static str,
}

impl Member {
    fn config(name: &str, routes: &[String], block: &str, beside: &str) -> String {
        let routes = routes.join(", ");
        format!(
            "server_name: {name}\ncluster {{ name: c, listen: '127.0.0.1:-1', routes: [{routes}]\n{block} }}\n{beside}"
        )
    }

    fn start(name: &'static str, routes: &[String], block: &str, beside: &str) -> Self {
        let config = Self::config(name, routes, block, beside);
        let server = ServerOptions::default()
            .config(&config)
            .monitoring()
            .start();
        Self { server, name }
    }

    /// Takes up another configuration, and waits until it is in force.
    #[track_caller]
    fn reload(&mut self, routes: &[String], block: &str, beside: &str) {
        let config = Self::config(self.name, routes, block, beside);
        self.server.reload(&config);
    }

    /// Where others dial it, as that user.
    fn url(&self, user: &str) -> String {
        format!("'nats-route://{user}@127.0.0.1:{}'", self.port())
    }

    fn port(&self) -> u16 {
        let line = self
            .server
            .wait_for_log("Listening for route connections on");
        line.rsplit(':').next().unwrap().trim().parse().unwrap()
    }

    fn routez(&self) -> Value {
        let answer = http_get(self.server.monitor_address(), "/routez?subs=true").unwrap();
        serde_json::from_str(&answer.body).unwrap()
    }

    #[track_caller]
    fn wait_for_routes(&self, count: u64) {
        eventually("all routes stand", || {
            (self.routez()["num_routes"] == count).then_some(())
        });
    }

    /// What each connection is called, sorted.
    fn route_ids(&self) -> Vec<u64> {
        let routes = self.routez();
        let ids = routes["routes"].as_array().unwrap().iter();
        let mut ids: Vec<_> = ids.map(|route| route["rid"].as_u64().unwrap()).collect();
        ids.sort_unstable();
        ids
    }

    fn client(&self, user: &str) -> Wire {
        let options = format!(
            r#"{{"verbose":false,"headers":true,"no_responders":true,"protocol":1,"user":"{user}","pass":"p"}}"#
        );
        Wire::ready(self.server.address(), &options)
    }
}

fn pair(block: &str, beside: &str) -> (Member, Member) {
    let one = Member::start("one", &[], block, beside);
    let two = Member::start("two", &[one.url("u:p")], block, beside);
    one.wait_for_routes(ROUTES_EACH);
    two.wait_for_routes(ROUTES_EACH);
    (one, two)
}

/// Publishes until the listener has heard of it.
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

/// Publishes until nobody hears it any more.
#[track_caller]
fn is_lost(publisher: &mut Wire, subject: &str) {
    publisher.send("SUB nobody 99\r\n");
    eventually("nobody hears it", || {
        publisher.send(format!("PUB {subject} nobody 0\r\n\r\n"));
        publisher.round_trip().contains("503").then_some(())
    });
    publisher.send("UNSUB 99\r\n");
    publisher.round_trip();
}

/// Ten messages arrive ten times.
#[track_caller]
fn arrives_once(publisher: &mut Wire, listener: &mut Wire, subject: &str) {
    for _ in 0..10 {
        publisher.send(format!("PUB {subject} 1\r\nx\r\n"));
    }
    publisher.round_trip();
    listener.settle(QUIET);
    assert_eq!(listener.take_text().matches("MSG ").count(), 10);
}

#[test]
fn servers_with_other_credentials_are_let_go_and_those_with_the_new_ones_come() {
    let word = |word: &str| format!("authorization {{ user: u, password: {word} }}");
    let (mut one, mut two) = pair(&word("p"), "");
    one.reload(&[], &word("q"), "");
    one.wait_for_routes(0);
    two.server.wait_for_log("Authorization Violation");
    // Whom this one dials has shown no credentials, and is not asked for them later.
    two.reload(&[one.url("u:q")], &word("p"), "");
    one.wait_for_routes(ROUTES_EACH);
    let ids = two.route_ids();
    two.reload(&[one.url("u:q")], &word("other"), "");
    assert_eq!(two.route_ids(), ids);
    let (mut publisher, mut listener) = (one.client(""), two.client(""));
    listener.send("SUB a 1\r\n");
    reaches(&mut publisher, &mut listener, "a");
}

#[test]
fn permissions_change_for_servers_that_are_connected() {
    let rules = |import: &str, export: &str| {
        format!("permissions {{ import: {import}, export: {export} }}")
    };
    let (mut one, two) = pair(&rules("'in.>'", "'out.>'"), "");
    let (mut first, mut second) = (one.client(""), two.client(""));
    let ids = one.route_ids();
    first.send("SUB in.x 1\r\nSUB more.x 2\r\n");
    second.send("SUB out.x 1\r\nSUB wide.x 2\r\nSUB wide.* 3\r\n");
    // The second server has the same rules, and passes nothing on but `in.>`.
    is_lost(&mut second, "more.x");
    is_lost(&mut first, "out.x");
    let mut two = two;
    two.reload(&[one.url("u:p")], "", "");
    reaches(&mut first, &mut second, "out.x");
    reaches(&mut second, &mut first, "in.x");
    is_lost(&mut first, "wide.x");
    let before = one.routez();
    // More comes in and more is given, also of what is there already.
    let wide = rules(
        "['in.>', 'more.>']",
        "{ allow: ['out.>', 'wide.>'], deny: ['wide.secret'] }",
    );
    one.reload(&[], &wide, "");
    reaches(&mut second, &mut first, "more.x");
    reaches(&mut first, &mut second, "wide.x");
    first.send("PUB wide.secret 1\r\nx\r\nPUB wide.y 1\r\ny\r\n");
    let heard = second.expect("MSG wide.y 3 1");
    assert!(!heard.contains("wide.secret"), "{heard}");
    assert_ne!(one.routez()["export"], before["export"]);
    // The other server shows what it was told.
    eventually("the other side's view", || {
        let shown = two.routez()["routes"][0]["import"]["allow"].clone();
        (shown == serde_json::json!(["in.>", "more.>"])).then_some(())
    });
    // And less.
    one.reload(&[], &rules("'more.>'", "'wide.x'"), "");
    is_lost(&mut second, "in.x");
    reaches(&mut second, &mut first, "more.x");
    is_lost(&mut first, "out.x");
    reaches(&mut first, &mut second, "wide.x");
    is_lost(&mut first, "wide.y");
    assert_eq!(one.route_ids(), ids);
}

#[test]
fn a_route_that_is_added_is_dialled_and_one_that_is_removed_is_not_dialled_again() {
    let one = Member::start("one", &[], "", "");
    let three = Member::start("three", &[], "", "");
    let mut two = Member::start("two", &[], "", "");
    two.reload(&[one.url("u:p")], "", "");
    one.wait_for_routes(ROUTES_EACH);
    let ids = two.route_ids();
    two.reload(&[one.url("u:p"), three.url("u:p")], "", "");
    // The servers tell each other.
    two.wait_for_routes(2 * ROUTES_EACH);
    assert!(ids.iter().all(|id| two.route_ids().contains(id)));
    drop(three);
    two.wait_for_routes(ROUTES_EACH);
    two.reload(&[], "", "");
    two.server.wait_for_log("Removed route 127.0.0.1:");
    two.wait_for_routes(0);
    one.wait_for_routes(0);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(one.routez()["num_routes"], 0);
    two.reload(&[one.url("u:p")], "", "");
    one.wait_for_routes(ROUTES_EACH);
}

#[test]
fn a_pool_of_another_size_carries_everything() {
    let (mut one, mut two) = pair("", "");
    let (mut publisher, mut listener) = (one.client(""), two.client(""));
    listener.send("SUB a 1\r\nSUB b 2\r\n");
    reaches(&mut publisher, &mut listener, "a");
    one.reload(&[], "pool_size: 5", "");
    // The larger of the two sizes is what both have.
    one.wait_for_routes(6);
    two.wait_for_routes(6);
    reaches(&mut publisher, &mut listener, "a");
    arrives_once(&mut publisher, &mut listener, "b");
    two.reload(&[one.url("u:p")], "pool_size: 2", "");
    two.wait_for_routes(6);
    one.reload(&[], "pool_size: 2", "");
    one.wait_for_routes(3);
    two.wait_for_routes(3);
    reaches(&mut publisher, &mut listener, "a");
    arrives_once(&mut publisher, &mut listener, "b");
    // Without a pool there is one connection, which carries the system account, too.
    one.reload(&[], "pool_size: -1", "");
    two.reload(&[one.url("u:p")], "pool_size: -1", "");
    one.wait_for_routes(1);
    two.wait_for_routes(1);
    reaches(&mut publisher, &mut listener, "a");
    arrives_once(&mut publisher, &mut listener, "b");
}

#[test]
fn accounts_get_routes_of_their_own_and_give_them_back_without_anything_coming_twice() {
    let accounts =
        "accounts { A { users: [{user: a, password: p}] }, B { users: [{user: b, password: p}] } }";
    let (mut one, mut two) = pair("", accounts);
    let (mut first, mut second) = (one.client("a"), two.client("a"));
    first.send("SUB to.first 1\r\n");
    second.send("SUB to.second 1\r\nSUB work q 2\r\n");
    reaches(&mut first, &mut second, "to.second");
    reaches(&mut second, &mut first, "to.first");
    for _ in 0..2 {
        one.reload(&[], "accounts: [A]", accounts);
        two.reload(&[one.url("u:p")], "accounts: [A]", accounts);
        one.wait_for_routes(ROUTES_EACH + 1);
        reaches(&mut first, &mut second, "to.second");
        reaches(&mut second, &mut first, "to.first");
        arrives_once(&mut first, &mut second, "to.second");
        arrives_once(&mut second, &mut first, "to.first");
        arrives_once(&mut first, &mut second, "work");
        let own = one.routez()["routes"].as_array().unwrap().clone();
        let own = own.iter().find(|route| route["account"] == "A").unwrap();
        assert!(own["out_msgs"].as_u64().unwrap() >= 20, "{own}");
        two.reload(&[one.url("u:p")], "", accounts);
        one.reload(&[], "", accounts);
        one.wait_for_routes(ROUTES_EACH);
        reaches(&mut first, &mut second, "to.second");
        reaches(&mut second, &mut first, "to.first");
        arrives_once(&mut first, &mut second, "to.second");
        arrives_once(&mut second, &mut first, "to.first");
        arrives_once(&mut first, &mut second, "work");
    }
    let config = Member::config("one", &[], "accounts: [NOBODY]", accounts);
    one.server.write_config(&config);
    one.server.signal(Signal::HUP);
    one.server.wait_for_log(
        "unable to add account \"NOBODY\" to the list of dedicated routes: account missing",
    );
}

#[test]
fn another_level_of_compression_is_taken_up_and_another_manner_is_agreed_on_anew() {
    let compression = |mode: &str| format!("compression: {mode}");
    let (mut one, two) = pair(&compression("s2_fast"), "");
    let shown = |member: &Member| -> Vec<Value> {
        let routes = member.routez();
        let routes = routes["routes"].as_array().unwrap().iter();
        routes.map(|route| route["compression"].clone()).collect()
    };
    assert!(shown(&one).iter().all(|mode| mode == "s2_fast"));
    let ids = one.route_ids();
    one.reload(&[], &compression("s2_best"), "");
    assert!(shown(&one).iter().all(|mode| mode == "s2_best"));
    assert_eq!(one.route_ids(), ids);
    one.reload(&[], &compression("off"), "");
    eventually("all are new", || {
        let new = one.route_ids();
        let is_new = new.len() == ids.len() && new.iter().all(|id| !ids.contains(id));
        is_new.then_some(())
    });
    assert!(shown(&one).iter().all(|mode| mode == "off"));
    let (mut publisher, mut listener) = (one.client(""), two.client(""));
    listener.send("SUB a 1\r\n");
    reaches(&mut publisher, &mut listener, "a");
}

/// Says that it is a server of that cluster; what comes of it.
fn greet(port: u16, cluster: &str) -> String {
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    let mut peer = Wire::connect(address);
    peer.expect("\r\n");
    peer.send(format!(
        "CONNECT {{\"echo\":true,\"verbose\":false,\"name\":\"NX\",\"cluster\":\"{cluster}\"}}\r\n\
         INFO {{\"server_id\":\"NX\",\"server_name\":\"x\",\"host\":\"127.0.0.1\",\"port\":1,\"cluster\":\"{cluster}\",\"proto\":1}}\r\n"
    ));
    peer.read_until(Duration::from_secs(20), |bytes, closed| {
        closed || bytes.windows(6).any(|window| window == b"PING\r\n")
    });
    peer.take_text()
}

#[test]
fn the_name_of_the_cluster_its_address_for_others_and_its_timing_change() {
    let mut one = Member::start("one", &[], "", "");
    let mut told = one.client("");
    assert!(greet(one.port(), "other").contains("does not match"));
    let config = "server_name: one\ncluster { name: other, listen: '127.0.0.1:-1', advertise: 'far.example:7', ping_interval: '100ms', ping_max: 1000, no_advertise: true }";
    one.server.write_config(config);
    one.server.signal(Signal::HUP);
    one.server.wait_for_log("Reloaded: cluster");
    one.server.wait_for_log("Reloaded server configuration");
    told.expect(r#""cluster":"other""#);
    assert!(greet(one.port(), "other").contains("PING"));
    assert!(greet(one.port(), "c").contains("does not match"));
    let mut peer = Wire::connect((Ipv4Addr::LOCALHOST, one.port()).into());
    let info = peer.expect("\r\n");
    assert!(
        info.contains("far.example") && !info.contains("connect_urls"),
        "{info}"
    );
    // Where routes listen stays.
    one.server
        .write_config("server_name: one\ncluster { name: other, listen: '127.0.0.1:1' }");
    one.server.signal(Signal::HUP);
    one.server
        .wait_for_log("config reload not supported for cluster port: old=-1, new=1");
}

/// Makes an authority and a certificate for the loopback address.
fn certificate(folder: &Path, name: &str) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let write = |part: &str, text: String| {
        std::fs::write(folder.join(format!("{name}.{part}")), text).unwrap();
    };
    write("ca", authority.pem());
    write("pem", certificate.pem());
    write("key", key.serialize_pem());
}

#[test]
fn routes_are_encrypted_from_a_reload_on_and_certificates_are_renewed() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "old");
    certificate(folder.path(), "new");
    let path = folder.path().display();
    let tls = |name: &str| {
        format!(
            "tls {{ cert_file: '{path}/{name}.pem', key_file: '{path}/{name}.key', ca_file: '{path}/{name}.ca', verify: true }}"
        )
    };
    let (mut one, mut two) = pair("", "");
    let ids = one.route_ids();
    one.reload(&[], &tls("old"), "");
    // Who is connected stays as it is.
    assert_eq!(one.route_ids(), ids);
    two.reload(&[], &tls("old"), "");
    one.wait_for_routes(0);
    two.reload(&[one.url("u:p")], &tls("old"), "");
    one.wait_for_routes(ROUTES_EACH);
    one.reload(&[], &tls("new"), "");
    one.wait_for_routes(ROUTES_EACH);
    two.reload(&[], &tls("old"), "");
    one.wait_for_routes(0);
    two.reload(&[one.url("u:p")], &tls("old"), "");
    two.server.wait_for_log("Error trying to connect to route");
    assert_eq!(one.routez()["num_routes"], 0);
    two.reload(&[one.url("u:p")], &tls("new"), "");
    one.wait_for_routes(ROUTES_EACH);
    let (mut publisher, mut listener) = (one.client(""), two.client(""));
    listener.send("SUB a 1\r\n");
    reaches(&mut publisher, &mut listener, "a");
}

/// Dials the cluster port and waits until it is greeted.
fn dial(member: &Member) -> Wire {
    let mut peer = Wire::connect((Ipv4Addr::LOCALHOST, member.port()).into());
    peer.expect("INFO {");
    peer.expect("\r\n");
    peer
}

/// Asks for a link, as a server of the same cluster.
fn ask_for_link(peer: &mut Wire, password: &str) {
    peer.take();
    peer.send(format!(
        "LINK {{\"link\":1,\"server_name\":\"x\",\"server_id\":\"NX\",\"cluster\":\"c\",\"channel\":\"bulk\",\"user\":\"u\",\"pass\":\"{password}\"}}\r\n"
    ));
}

#[test]
fn links_of_servers_with_other_credentials_are_let_go_and_none_comes_in_on_the_old_ones() {
    let word = |word: &str| format!("authorization {{ user: u, password: {word} }}");
    // Nobody is there; JetStream in a cluster wants to have others.
    let nobody = ["'nats-route://127.0.0.1:1'".to_owned()];
    let jetstream = "jetstream { store_dir: '@DIR@/js' }";
    let mut one = Member::start("one", &nobody, &word("p"), jetstream);
    let mut linked = dial(&one);
    ask_for_link(&mut linked, "p");
    linked.expect("LINK {");
    one.reload(
        &nobody,
        &word("p"),
        "max_payload: 1000\njetstream { store_dir: '@DIR@/js' }",
    );
    assert!(!one.server.log().contains("may not be linked"));
    let mut greeted = dial(&one);
    one.reload(&nobody, &word("q"), jetstream);
    linked.expect_closed();
    one.server
        .wait_for_log("Bulk link with \"x\" ended: the peer may not be linked as it is any more");
    // Whoever was greeted before does not come in on what held then.
    ask_for_link(&mut greeted, "p");
    let answer = greeted.expect_closed();
    assert!(!answer.contains("LINK {"), "{answer}");
    let mut again = dial(&one);
    ask_for_link(&mut again, "q");
    again.expect("LINK {");
}
