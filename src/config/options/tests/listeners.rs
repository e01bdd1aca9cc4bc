//! Where the server listens, how that is encrypted, and the cluster.

use super::*;

#[test]
fn listeners_are_read_in_all_their_forms() {
    for (text, host, port) in [
        ("listen: 127.0.0.1:4333", "127.0.0.1", Port::Fixed(4333)),
        ("listen: \"127.0.0.1:-1\"", "127.0.0.1", Port::Random),
        ("listen: 4333", "0.0.0.0", Port::Fixed(4333)),
        ("listen: -1", "0.0.0.0", Port::Random),
        ("listen: \":4333\"", "0.0.0.0", Port::Fixed(4333)),
        ("listen: \"[::1]:4333\"", "::1", Port::Fixed(4333)),
        ("host: localhost, port: 5", "localhost", Port::Fixed(5)),
        ("net = '::'\nport = -1", "::", Port::Random),
        ("port: 0", "0.0.0.0", Port::Fixed(4222)),
        ("listen: 127.0.0.1:0", "127.0.0.1", Port::Fixed(4222)),
    ] {
        let options = options(text);
        assert_eq!(
            (options.host.as_str(), options.port),
            (host, port),
            "{text}"
        );
    }
    assert!(refusal("listen: nowhere").contains("could not parse address string"));
    assert!(refusal("port: 70000").contains("70000 is not a port"));
    assert!(refusal("port: -2").contains("-2 is not a port"));
}

#[test]
fn monitoring_is_read_in_all_its_forms() {
    let monitor = |text: &str| {
        command_line(&["-c", "test.conf"], Some(text))
            .unwrap()
            .monitor
    };
    assert_eq!(monitor("http: 8222").unwrap().port, Port::Fixed(8222));
    let named = monitor("http: \"127.0.0.1:-1\"").unwrap();
    assert_eq!(named.host.as_deref(), Some("127.0.0.1"));
    assert_eq!(named.port, Port::Random);
    assert_eq!(monitor("monitor_port = 8222").unwrap().host, None);
    let based = monitor("http_port: 1, http_base_path: \"nats//x/\"").unwrap();
    assert_eq!(based.base_path, "/nats/x");
    let tls = "tls { cert_file: a.pem, key_file: a.key }";
    let encrypted = monitor(&format!("https: '127.0.0.1:8443', {tls}")).unwrap();
    assert!(encrypted.is_encrypted());
    assert_eq!(encrypted.host.as_deref(), Some("127.0.0.1"));
    assert_eq!(encrypted.listens_on(), Port::Fixed(8443));
    assert!(refusal("https_port: 8443").contains("TLS cert and key required for HTTPS"));
    let both = refusal(&format!("http: 8222, https_port: 8443, {tls}"));
    assert!(both.contains("can't specify both HTTP (8222) and HTTPs (8443) ports"));
    assert_eq!(monitor("http_base_path: x"), None);
    assert_eq!(monitor("http_port: 0"), None);
}

#[test]
fn a_flag_sets_the_path_in_front_of_monitoring() {
    let options = command_line(&["-m", "8222", "--http_base_path", "nats/"], None).unwrap();
    assert_eq!(options.monitor.unwrap().base_path, "/nats");
}

#[test]
fn flags_for_tls_are_laid_over_the_file_and_need_a_certificate() {
    assert!(command_line(&["--tls=false"], None).unwrap().tls.is_none());
    let file = "tls { cert_file: a.pem, key_file: a.key, timeout: 5 }";
    let flags = ["--tlsverify", "--tlskey", "b.key", "--tlscacert", "ca.pem"];
    let options = command_line(&[&flags[..], &["-c", "test.conf"]].concat(), Some(file)).unwrap();
    assert_eq!(options.authentication_timeout(), Duration::from_secs(6));
    let tls = options.tls.unwrap();
    assert_eq!(tls.cert_file, Some("a.pem".into()));
    assert_eq!(tls.key_file, Some("b.key".into()));
    assert_eq!(tls.ca_file, Some("ca.pem".into()));
    assert_eq!(tls.peer_certificate, PeerCertificate::Required);
    for (flags, reason) in [
        (&["--tls"][..], "TLS Server certificate must be present"),
        (&["--tlskey", "x"], "TLS Server certificate must be present"),
        (
            &["--tlscert", "x"],
            "TLS Server private key must be present",
        ),
    ] {
        let error = command_line(flags, None).unwrap_err().to_string();
        assert!(error.contains(reason), "{flags:?}: {error}");
    }
}

#[test]
fn what_is_wrong_in_a_tls_block_is_named_with_its_place() {
    for (block, expected) in [
        (
            "cert_file: a.pem",
            "missing 'key_file' in TLS configuration",
        ),
        (
            "key_file: a.key",
            "missing 'cert_file' in TLS configuration",
        ),
        ("min_version: '1.1'", "unsupported TLS version"),
        ("min_version: '2'", "unknown TLS version"),
        ("timeout: soon", "error parsing tls config, 'timeout'"),
        ("timeout: -1", "timeout is out of range"),
        ("first: later", "error parsing first"),
        (
            "verify: true, pinned_certs: [aa]",
            "'pinned_certs' key aa does not look like hex-encoded sha256",
        ),
        (
            "pinned_certs: [a8f407340dcc719864214b85ed96f98d16cbffa8f509d9fa4ca237b7bb3f9c32]",
            "pinned_certs needs 'verify'",
        ),
        (
            "cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]",
            "cipher \"TLS_RSA_WITH_AES_128_CBC_SHA\" is not known here",
        ),
        (
            "curve_preferences: [CurveP521]",
            "curve \"CurveP521\" is not known here",
        ),
        (
            "certs: [{cert_file: a}]",
            "both 'cert_file' and 'key_file' options are required",
        ),
        ("insecure: true", "\"insecure\" is not supported"),
        ("sert_file: x", "unknown field \"sert_file\""),
    ] {
        let text = refusal(&format!("tls {{\n  {block}\n}}"));
        assert!(text.contains(expected), "{block}: {text}");
        let line = if expected.starts_with("missing") || expected.contains("needs 'verify'") {
            "1"
        } else {
            "2"
        };
        assert!(
            text.starts_with(&format!("{line}:")) || text.contains(&format!(":{line}:")),
            "{text}"
        );
    }
    let taken =
        options("tls { insecure: false, verify_and_map: false, verify: true, first: auto }");
    let tls = taken.tls.unwrap();
    assert_eq!(
        tls.handshake_first,
        HandshakeFirst::Within(Duration::from_millis(50))
    );
    assert_eq!(tls.peer_certificate, PeerCertificate::Required);
}

#[test]
fn a_cluster_is_read_whole_and_flags_lie_over_it() {
    let text = "cluster { name: c, listen: '127.0.0.1:5000', routes: ['nats-route://u:p@a:1', 'nats://b:2']
        authorization { user: u, password: p, timeout: 3 }
        permissions { import: ['in.>'], export: { deny: ['x'] } }
        advertise: 'h:9', no_advertise: true, connect_retries: 4, connect_backoff: true, pool_size: 5
        accounts: [A], compression: { mode: s2_auto, rtt_thresholds: ['1ms', '2ms'] }
        ping_interval: '20s', ping_max: 3, write_deadline: '5s' }";
    let options = options(text);
    let cluster = options.cluster().unwrap();
    assert_eq!(cluster.port, Some(Port::Fixed(5000)));
    assert_eq!(cluster.routes.len(), 2);
    assert_eq!(cluster.user.as_deref(), Some("u"));
    assert_eq!(cluster.pool_size, Some(5));
    assert_eq!(cluster.advertise, Some(("h".into(), Some(9))));
    let thresholds = [1, 2].map(Duration::from_millis).to_vec();
    assert_eq!(cluster.compression, Compression::Auto(thresholds));
    assert!(cluster.no_advertise && cluster.connect_backoff);
    for (wrong, why) in [
        ("cluster { name: 'a b' }", "spaces"),
        ("cluster { port: 1, authorization { token: t } }", "tokens"),
        (
            "cluster { port: 1, compression: zip }",
            "unsupported compression",
        ),
        ("cluster { routes: ['nats://a:1'] }", "cluster capabilities"),
        (
            "cluster { port: 1, pool_size: -1, accounts: [A] }",
            "pinned accounts",
        ),
        ("cluster { port: 1, nonsense: 1 }", "nonsense"),
        (
            "cluster { name: c, port: 1 }\njetstream: enabled",
            "server_name",
        ),
        (
            "server_name: s, cluster { name: c, port: 1 }\njetstream: enabled",
            "requires configured routes",
        ),
    ] {
        let error = refusal(wrong);
        assert!(error.contains(why), "{wrong}: {error}");
    }
}

#[test]
fn what_monitoring_keeps_and_shows_is_limited_by_the_file() {
    let limits = |text: &str| {
        command_line(&["-c", "test.conf"], Some(text))
            .unwrap()
            .limits
    };
    let usual = limits("");
    assert_eq!(usual.closed_clients_max, 10_000);
    assert_eq!(usual.metric_series_max, 50_000);
    assert_eq!(limits("max_closed_clients: 5").closed_clients_max, 5);
    assert_eq!(limits("max_closed_clients: 0").closed_clients_max, 10_000);
    assert_eq!(limits("max_metric_series: 0").metric_series_max, 0);
    assert!(refusal("max_metric_series: -1").contains("must be between"));
}

#[test]
fn times_of_checks_that_are_longer_than_time_are_as_long_as_can_be() {
    for seconds in ["9223372036854775807", "99999999999999999999999999.5"] {
        let text = format!(
            "tls {{ cert_file: a, key_file: b, ca_file: c, verify: true, ocsp_peer {{ verify: true
             ca_timeout: {seconds}, allowed_clockskew: {seconds}, cache_ttl_when_next_update_unset: {seconds} }} }}
             ocsp_cache {{ save_interval: {seconds} }}"
        );
        let options = options(&text);
        let tls = options.tls.as_ref().unwrap();
        let peer = tls.ocsp_peer.as_ref().unwrap();
        let longest = Duration::from_nanos(i64::MAX as u64);
        assert_eq!(peer.responder_timeout, longest, "{seconds}");
        assert_eq!(peer.clock_skew, longest);
        assert_eq!(peer.unset_lasts, longest);
        assert_eq!(tls.ocsp_cache.save_interval, longest);
    }
}

#[test]
fn servers_of_a_cluster_always_show_each_other_certificates() {
    let pin = "00".repeat(32);
    let text = format!(
        "ocsp {{ mode: always }}, cluster {{ listen: '127.0.0.1:1'
         tls {{ cert_file: a, key_file: b, verify: false, pinned_certs: ['{pin}'], ocsp_peer: true }} }}"
    );
    let options = options(&text);
    let tls = options.cluster.tls.as_ref().unwrap();
    assert_eq!(tls.peer_certificate, PeerCertificate::Required);
    assert!(tls.ocsp_peer.is_some());
    assert_eq!(tls.ocsp, options.ocsp);
}
