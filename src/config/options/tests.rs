use super::*;
use std::collections::HashMap;
use std::io;

/// Files and variables that exist only in the test.
#[derive(Default)]
struct Fake {
    files: HashMap<PathBuf, Vec<u8>>,
    variables: HashMap<String, String>,
}

impl Surroundings for Fake {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files
            .get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
}

fn options(text: &str) -> Options {
    Options::from_text(text, &Fake::default()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refusal(text: &str) -> String {
    match Options::from_text(text, &Fake::default()) {
        Ok(_) => panic!("{text}: taken"),
        Err(error) => error.to_string(),
    }
}

fn command_line(arguments: &[&str], file: Option<&str>) -> Result<Options, ConfigError> {
    let mut fake = Fake::default();
    if let Some(text) = file {
        fake.files.insert("test.conf".into(), text.into());
    }
    let arguments = arguments.iter().map(|argument| (*argument).to_owned());
    let (flags, _) = Flags::parse_words(arguments).unwrap();
    Options::load(&flags, &fake)
}

#[test]
fn without_anything_the_defaults_are_the_references() {
    let options = command_line(&[], None).unwrap();
    assert_eq!(options.host, "0.0.0.0");
    assert_eq!(options.port, Port::Fixed(4222));
    assert_eq!(options.limits.payload_bytes_max, 1_048_576);
    assert_eq!(options.limits.pending_bytes_max, 67_108_864);
    assert_eq!(options.limits.connections_max, Some(65_536));
    assert_eq!(options.timing.ping_interval, Duration::from_secs(120));
    assert_eq!(options.authorization.timeout, Duration::from_secs(2));
    assert!(options.monitor.is_none() && options.jetstream().is_none());
    assert!(!options.authorization.required());
}

#[test]
fn an_ack_means_on_disk_unless_an_interval_is_asked_for() {
    assert_eq!(
        options("jetstream: true").jetstream.sync,
        SyncPolicy::Always
    );
    for (text, sync) in [
        ("jetstream { sync_interval: always }", SyncPolicy::Always),
        ("jetstream { sync: \"ALWAYS\" }", SyncPolicy::Always),
        (
            "jetstream { sync_interval: \"2m\" }",
            SyncPolicy::Interval(Duration::from_secs(120)),
        ),
        (
            "jetstream { sync_interval: 10 }",
            SyncPolicy::Interval(Duration::from_secs(10)),
        ),
    ] {
        assert_eq!(options(text).jetstream.sync, sync, "{text}");
    }
    assert!(refusal("jetstream { sync_interval: 0 }").contains("longer than zero"));
}

#[test]
fn jetstream_is_switched_in_every_way_the_reference_knows() {
    for (text, enabled) in [
        ("jetstream: enabled", true),
        ("jetstream: ENABLED", true),
        ("jetstream: true", true),
        ("jetstream: {}", true),
        ("jetstream {\n}", true),
        ("jetstream { store_dir: '/x' }", true),
        ("jetstream { enabled: false, store_dir: '/x' }", false),
        ("jetstream: disabled", false),
        ("jetstream: off", false),
        ("port: 1", false),
    ] {
        assert_eq!(options(text).jetstream().is_some(), enabled, "{text}");
    }
    assert!(refusal("jetstream: maybe").contains("Expected 'enabled' or 'disabled'"));
}

#[test]
fn storage_limits_take_numbers_and_quoted_sizes() {
    let options = options(
        "jetstream { max_mem_store: 64MiB, max_file_store: \"10G\", max_buffered_size: 1Gb, max_buffered_msgs: 12 }",
    );
    assert_eq!(options.jetstream.memory_max, StoreLimit::Bytes(64 << 20));
    assert_eq!(options.jetstream.file_max, StoreLimit::Bytes(10 << 30));
    assert_eq!(options.jetstream.buffered_bytes_max, 1 << 30);
    assert_eq!(options.jetstream.buffered_messages_max, 12);
    let dynamic = super::tests::options("jetstream { max_file: -1 }");
    assert_eq!(dynamic.jetstream.file_max, StoreLimit::Dynamic);
    assert!(refusal("jetstream { max_file: '10GiB' }").contains("K, M, G, T"));
    assert!(refusal("jetstream { max_file: '9223372036854775807T' }").contains("K, M, G, T"));
}

#[test]
fn what_streams_and_consumers_may_ask_for_is_limited() {
    let limits = options(
        "jetstream { limits { max_request_batch: 100, max_ack_pending: 5k, duplicate_window: \"30s\" } }",
    )
    .jetstream
    .limits;
    assert_eq!(limits.request_batch_max, Some(100));
    assert_eq!(limits.ack_pending_max, Some(5_000));
    assert_eq!(limits.duplicate_window_max, Some(Duration::from_secs(30)));
    assert_eq!(
        options("jetstream { limits {} }").jetstream.limits,
        AssetLimits::default()
    );
    assert!(refusal("jetstream { limits { batch {} } }").contains("not supported"));
    let placing = options(
        "server_tags: [' AZ:1', ssd, ssd], jetstream { unique_tag: ' Az:', limits { max_ha_assets: 7 } }",
    );
    assert_eq!(placing.server_tags, ["az:1", "ssd"]);
    assert_eq!(placing.jetstream.unique_tag, "az:");
    assert_eq!(placing.jetstream.limits.ha_assets_max, Some(7));
    assert_eq!(options("server_tags: one").server_tags, ["one"]);
    assert!(refusal("jetstream { limits { nonsense: 1 } }").contains("unknown field"));
}

#[test]
fn streams_live_below_the_store_directory() {
    let directory = |text: &str| options(text).jetstream.directory();
    assert_eq!(
        directory("jetstream { store_dir: '/data' }"),
        Path::new("/data/jetstream")
    );
    assert_eq!(
        directory("store_dir: /data, jetstream: true"),
        Path::new("/data/jetstream")
    );
    assert_eq!(
        directory("jetstream { store_dir: '/data/jetstream' }"),
        Path::new("/data/jetstream")
    );
    assert!(
        options("jetstream: true")
            .jetstream
            .directory_is_temporary()
    );
    assert!(
        refusal("store_dir: /a\njetstream { store_dir: /b }").contains("Duplicate 'store_dir'")
    );
}

#[test]
fn encryption_needs_a_key_and_never_shows_it() {
    let options = options("jetstream { key: sesame, cipher: aes, prev_key: open }");
    let encryption = options.jetstream.encryption.clone().unwrap();
    assert_eq!(encryption.key, "sesame");
    assert_eq!(encryption.previous_key.as_deref(), Some("open"));
    assert_eq!(encryption.cipher, EncryptionCipher::Aes256Gcm);
    assert!(!format!("{options:?}").contains("sesame"));
    assert!(refusal("jetstream { cipher: rot13 }").contains("Unknown cipher type"));
    assert!(refusal("jetstream { prev_key: open }").contains("needs a current one"));
}

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
    assert_eq!(monitor("http_base_path: x"), None);
    assert_eq!(monitor("http_port: 0"), None);
}

#[test]
fn users_and_their_permissions_are_read() {
    let options = options(
        r#"
        authorization {
          timeout: "500ms"
          default_permissions { publish: "public.>" }
          users = [
            {user: alice, password: $2a$11$W2zko751KUvVy59mUTWmpOdWjpEm5qhcCZRd05GjI/sSOT.xtiHyG
             permissions: {
               publish: { allow: ["a.>", "b"], deny: "a.secret" }
               subscribe: ["c", "d.* workers"]
               allow_responses: { max: -1, expires: "1s" }
             }}
            {user: bob, pass: s3cret}
            {username: carol, permission: { allow_responses: true }}
          ]
        }
        no_auth_user: bob"#,
    );
    let authorization = &options.authorization;
    assert!(authorization.required() && authorization.holds_plain_passwords());
    assert_eq!(authorization.timeout, Duration::from_millis(500));
    let [alice, bob, carol] = authorization.users.as_slice() else {
        panic!("{authorization:?}");
    };
    assert!(alice.password.starts_with("$2a$11$"));
    let permissions = alice.permissions.as_ref().unwrap();
    let publish = permissions.publish.as_ref().unwrap();
    assert_eq!(publish.allow.as_deref().unwrap(), ["a.>", "b"]);
    assert_eq!(publish.deny, ["a.secret"]);
    let subscribe = permissions.subscribe.as_ref().unwrap();
    assert_eq!(subscribe.allow.as_deref().unwrap(), ["c", "d.* workers"]);
    let unlimited = ResponsePermission {
        replies_max: None,
        expires: Some(Duration::from_secs(1)),
    };
    assert_eq!(permissions.responses, Some(unlimited));
    let public = bob.permissions.as_ref().unwrap().publish.as_ref().unwrap();
    assert_eq!(public.allow.as_deref().unwrap(), ["public.>"]);
    let carol = carol.permissions.as_ref().unwrap();
    assert_eq!(
        carol.publish.as_ref().unwrap().allow.as_deref(),
        Some([].as_slice())
    );
    assert_eq!(carol.responses.unwrap().replies_max, Some(1));
    assert!(!format!("{options:?}").contains("s3cret"));
}

#[test]
fn a_hash_is_no_plain_password() {
    let plain = |text: &str| options(text).authorization.holds_plain_passwords();
    assert!(!plain("authorization { user: a, password: $2a$11$abc }"));
    assert!(!plain("authorization { users: [{user: a}] }"));
    assert!(plain("authorization { token: t }"));
}

#[test]
fn contradictions_in_authorization_are_refused() {
    for (text, reason) in [
        (
            "authorization { user: a, token: t }",
            "Cannot have a user/pass and token",
        ),
        (
            "authorization { user: a, users: [] }",
            "Can not have a single user/pass and a users array",
        ),
        (
            "authorization { token: a, users: [{user: b}] }",
            "Can not have a token and a users array",
        ),
        (
            "authorization { users: [{user: b}, {user: b}] }",
            "Duplicate user \"b\" detected",
        ),
        (
            "authorization { users: [{password: b}] }",
            "User entry requires a user",
        ),
        (
            "authorization { users: [{user: b, permissions: {publish: 'a..b'}}] }",
            "is not a valid subject",
        ),
        (
            "authorization { users: [{user: b, permissions: {publish: 'a q'}}] }",
            "is not a valid subject",
        ),
        (
            "authorization { users: [{user: b, permissions: {foo: 'a'}}] }",
            "unknown field \"foo\"",
        ),
        ("no_auth_user: ghost", "no_auth_user"),
        ("authorization { timeout: 'x' }", "invalid duration"),
        ("authorization { users: b }", "must be a list of users"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(reason), "{text}: {refusal}");
    }
}

#[test]
fn every_problem_is_reported_with_its_place_in_the_order_of_the_file() {
    let fake = Fake {
        files: HashMap::from([(
            PathBuf::from("conf/a.conf"),
            b"port: x\n\n  debug: 3\nnonsense: 1\njetstream {\n  domain: hub\n}\n".to_vec(),
        )]),
        ..Fake::default()
    };
    let error = Options::from_file(Path::new("conf/a.conf"), &fake).unwrap_err();
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "conf/a.conf:1:1: \"port\" must be an integer but is a string",
            "conf/a.conf:3:3: \"debug\" must be a boolean but is an integer",
            "conf/a.conf:4:1: unknown field \"nonsense\"",
            "conf/a.conf:6:3: \"domain\" is not supported by this server yet: JetStream domains are not built",
        ]
    );
}

/// Every key of the reference's top level.
const TOP_LEVEL: &str = "listen host net port client_advertise server_name debug trace trace_verbose \
    trace_headers logtime logtime_utc logfile log_file logfile_size_limit log_size_limit logfile_max_num log_max_num \
    syslog remote_syslog pidfile pid_file ports_file_dir prof_port prof_block_rate max_control_line max_payload \
    max_pending max_connections max_conn max_subscriptions max_subs max_sub_tokens max_subscription_tokens \
    max_traced_msg_len max_closed_clients ping_interval ping_max write_deadline write_timeout lame_duck_duration \
    lame_duck_grace_period no_fast_producer_stall proxy_protocol no_header_support disable_sublist_cache \
    no_sublist_cache connect_error_reports reconnect_error_reports http https http_port monitor_port https_port \
    http_base_path tls allow_non_tls ocsp ocsp_cache authorization accounts mappings maps no_auth_user \
    default_sentinel system_account system no_system_account no_system no_sys_acc operator operators roots root \
    root_operators root_operator trusted trusted_keys resolver account_resolver accounts_resolver resolver_tls \
    resolver_preload resolver_pinned_accounts default_js_domain proxies gateway leaf leafnodes jetstream \
    store_dir storedir websocket ws mqtt server_tags server_metadata feature_flags";

#[test]
fn every_key_of_the_reference_is_known_and_a_wrong_value_is_never_ignored() {
    for key in TOP_LEVEL.split_whitespace() {
        // No option is a date, so each key must answer: that it is not supported, or that the type is wrong.
        let refusal = refusal(&format!("{key}: 2026-01-01T00:00:00Z"));
        assert!(
            refusal.contains("not supported") || refusal.contains(" must be "),
            "{key}: {refusal}"
        );
        assert!(!refusal.contains("unknown field"), "{key}: {refusal}");
    }
    for key in "strict enable enabled store store_dir storedir sync sync_interval max_memory_store max_mem_store \
                max_mem max_file_store max_file domain key ek encryption_key prev_key prev_ek prev_encryption_key \
                cipher extension_hint limits tpm unique_tag max_outstanding_catchup max_buffered_size \
                max_buffered_msgs request_queue_limit info_queue_limit meta_compact meta_compact_size \
                meta_compact_sync max_concurrent_io"
        .split_whitespace()
    {
        let refusal = refusal(&format!("jetstream {{ {key}: 2026-01-01T00:00:00Z }}"));
        assert!(
            refusal.contains("not supported") || refusal.contains(" must be "),
            "{key}: {refusal}"
        );
    }
}

#[test]
fn what_is_asked_for_in_vain_but_changes_nothing_is_let_pass() {
    let options = options(
        "proxy_protocol: false, allow_non_tls: false, syslog: off, write_timeout: default, system_account: '$SYS'",
    );
    assert!(options.warnings.is_empty());
}

#[test]
fn numbers_out_of_bounds_are_refused() {
    for text in [
        "max_payload: 3G",
        "max_payload: -1",
        "max_control_line: 4G",
        "max_pending: 0",
        "max_sub_tokens: 256",
        "max_sub_tokens: 0",
        "ping_max: 9999999999",
        "lame_duck_duration: '10s'",
        "lame_duck_grace_period: '-1s'",
        "lame_duck_duration: '30s', lame_duck_grace_period: '30s'",
        "max_payload: 2M, max_pending: 1M",
        "server_name: 'a b'",
    ] {
        refusal(text);
    }
}

#[test]
fn a_bare_number_is_seconds_and_earns_a_warning() {
    let options = options("ping_interval: 5\nwrite_deadline: \"3s\"");
    assert_eq!(options.timing.ping_interval, Duration::from_secs(5));
    assert_eq!(options.timing.write_deadline, Duration::from_secs(3));
    assert_eq!(
        options.warnings,
        [
            ":1:1: invalid use of field \"ping_interval\": ping_interval should be converted to a duration"
        ]
    );
}

#[test]
fn keys_have_no_case_and_the_later_spelling_wins() {
    let options = options("PORT: 1\nPort: 2\nSERVER_NAME: x");
    assert_eq!(options.port, Port::Fixed(2));
    assert_eq!(options.server_name.as_deref(), Some("x"));
}

#[test]
fn a_key_that_only_defines_a_variable_is_no_option() {
    let options = options("SIZE: 2000\nmax_payload: $SIZE");
    assert_eq!(options.limits.payload_bytes_max, 2000);
    assert!(refusal("SIZE: 2000").contains("unknown field \"SIZE\""));
}

#[test]
fn flags_win_over_the_file() {
    let file = "port: 1, http: 8222, debug: true, trace: true, server_name: a\n\
                jetstream { store_dir: '/file' }, log_file: '/a'\n authorization { user: x, password: y }";
    let flags = [
        "-c",
        "test.conf",
        "-p",
        "2",
        "-m=8333",
        "-n",
        "b",
        "--user",
        "u",
        "-sd",
        "/flag",
        "-l=/b",
        "-D=false",
        "-T=false",
    ];
    let options = command_line(&flags, Some(file)).unwrap();
    assert_eq!(options.port, Port::Fixed(2));
    assert_eq!(options.monitor.unwrap().port, Port::Fixed(8333));
    assert_eq!(options.server_name.as_deref(), Some("b"));
    assert_eq!(
        options.jetstream.store_dir.as_deref(),
        Some(Path::new("/flag"))
    );
    assert_eq!(options.log.file.as_deref(), Some(Path::new("/b")));
    assert!(!options.log.debug && options.log.trace && !options.log.timestamps);
    assert_eq!(options.authorization.user.as_deref(), Some("u"));
    assert_eq!(options.authorization.password.as_deref(), Some("y"));
}

#[test]
fn a_flag_sets_the_path_in_front_of_monitoring() {
    let options = command_line(&["-m", "8222", "--http_base_path", "nats/"], None).unwrap();
    assert_eq!(options.monitor.unwrap().base_path, "/nats");
}

#[test]
fn flags_for_what_is_not_built_are_refused_by_name() {
    for flags in [
        &["--help_tls"][..],
        &["-ms", "8443"],
        &["-s"],
        &["--profile=1"],
        &["--client_advertise", "x"],
    ] {
        let error = command_line(flags, None).unwrap_err().to_string();
        assert!(
            error.contains("is not supported by this server yet"),
            "{flags:?}: {error}"
        );
    }
    command_line(&["--help_tls=false", "--syslog=false"], None).unwrap();
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
fn the_digest_is_the_one_the_reference_computes() {
    // Text and digest as recorded from the reference.
    let text = "server_name: golden\nlisten: \"127.0.0.1:24731\"\n\
                jetstream { store_dir: \"/tmp/tmp23_0l85i/js\", max_mem: 64MB, max_file: 1GB }\n";
    assert_eq!(
        options(text).config_digest,
        "sha256:4e1509c5b9e3fe946302cdc020feea8bcde82faae61f1bd97337e3f4182a103f"
    );
}

#[test]
fn an_include_stands_for_its_keys_and_its_errors_name_both_files() {
    let mut fake = Fake::default();
    fake.files.insert(
        "conf/main.conf".into(),
        b"port: 1\ninclude 'auth.conf'\ninclude ./deep/limits.conf".to_vec(),
    );
    fake.files.insert(
        "conf/auth.conf".into(),
        b"authorization { user: a\n password: b }".to_vec(),
    );
    fake.files.insert(
        "conf/deep/limits.conf".into(),
        b"max_payload: 10\n include more.conf".to_vec(),
    );
    fake.files
        .insert("conf/deep/more.conf".into(), b"ping_max: 7".to_vec());
    let options = Options::from_file(Path::new("conf/main.conf"), &fake).unwrap();
    assert_eq!(options.authorization.user.as_deref(), Some("a"));
    assert_eq!(options.limits.payload_bytes_max, 10);
    assert_eq!(options.timing.pings_outstanding_max, 7);

    fake.files.insert(
        "conf/auth.conf".into(),
        b"\n\nauthorization { user: \"a".to_vec(),
    );
    let error = Options::from_file(Path::new("conf/main.conf"), &fake)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("conf/main.conf:2:1") && error.contains("conf/auth.conf:3:23"),
        "{error}"
    );

    fake.files
        .insert("conf/auth.conf".into(), b"include main.conf".to_vec());
    let error = Options::from_file(Path::new("conf/main.conf"), &fake)
        .unwrap_err()
        .to_string();
    assert!(error.contains("includes itself"), "{error}");
    fake.files.remove(Path::new("conf/auth.conf"));
    let error = Options::from_file(Path::new("conf/main.conf"), &fake)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("error opening config file conf/auth.conf"),
        "{error}"
    );
}

#[test]
fn variables_come_from_the_file_and_then_from_the_environment() {
    let mut fake = Fake::default();
    for (name, value) in [
        ("NATS_PORT", "4333"),
        ("NATS_HOST", "\"127.0.0.1\""),
        ("NATS_DEBUG", "true"),
        ("NATS_LIST", "[{user: a}, {user: b}]"),
        ("LOOP", "$LOOP"),
        ("A", "$B"),
        ("B", "$A"),
    ] {
        fake.variables.insert(name.into(), value.into());
    }
    let text = "NATS_DEBUG: false\nport: $NATS_PORT, host: $NATS_HOST, debug: $NATS_DEBUG\n\
                authorization { users: $NATS_LIST }";
    let options = Options::from_text(text, &fake).unwrap();
    assert_eq!(options.port, Port::Fixed(4333));
    assert_eq!(options.host, "127.0.0.1");
    assert!(!options.log.debug, "the file's own definition comes first");
    assert_eq!(options.authorization.users.len(), 2);
    for (text, reason) in [
        ("port: $LOOP", "cycle"),
        ("port: $A", "cycle"),
        ("port: $GHOST", "can not be found"),
    ] {
        let error = Options::from_text(text, &fake).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
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
        ("pinned_certs: [aa]", "\"pinned_certs\" is not supported"),
        ("insecure: true", "\"insecure\" is not supported"),
        (
            "verify_and_map: true",
            "\"verify_and_map\" is not supported",
        ),
        ("sert_file: x", "unknown field \"sert_file\""),
    ] {
        let text = refusal(&format!("tls {{\n  {block}\n}}"));
        assert!(text.contains(expected), "{block}: {text}");
        let line = if expected.starts_with("missing") {
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
fn accounts_have_users_limits_and_streams() {
    let key = nkeys::KeyPair::new_account().public_key();
    let options = options(
        &r#"accounts {
          A {
            users: [{user: a, password: x}, {user: b, permissions: {publish: "b"}}]
            default_permissions: { publish: "a" }
            jetstream: { max_mem: 1MB, max_disk: 1G, streams: 3, max_consumers: 4, max_bytes_required: true
                         max_ack_pending: 5, mem_max_stream_bytes: 6, store_max_stream_bytes: 7, cluster_traffic: system }
            limits: { max_conn: 0, max_subs: 2, max_payload: -1 }
          }
          B { jetstream: enabled, nkey: @KEY@ }
          S {}
        }
        system_account: S
        no_auth_user: a"#
            .replace("@KEY@", &key),
    );
    let [a, b, s] = options.accounts.as_slice() else {
        panic!("{:?}", options.accounts);
    };
    let allowed = |user: &User| {
        let publish = user.permissions.as_ref().unwrap().publish.clone();
        publish.unwrap().allow.unwrap()
    };
    assert_eq!(allowed(&a.users[0]), ["a"]);
    assert_eq!(allowed(&a.users[1]), ["b"]);
    let expected = AccountJetStream {
        memory_bytes_max: 1 << 20,
        file_bytes_max: 1_000_000_000,
        streams_max: 3,
        consumers_max: 4,
        ack_pending_max: 5,
        memory_stream_bytes_max: 6,
        file_stream_bytes_max: 7,
        max_bytes_required: true,
    };
    assert_eq!(a.jetstream, Some(expected));
    assert_eq!(a.limits.connections_max, Some(0));
    assert_eq!(a.limits.subscriptions_max, Some(2));
    assert_eq!(a.limits.payload_bytes_max, None);
    assert_eq!(b.jetstream, Some(AccountJetStream::default()));
    assert_eq!(s.jetstream, None);
    assert_eq!(options.system_account(), "S");
    assert!(options.authorization_required() && options.holds_plain_passwords());
}

#[test]
fn accounts_that_make_no_sense_are_refused() {
    let key = nkeys::KeyPair::new_user().public_key();
    let twice = format!("accounts {{ A {{ users: [{{nkey: {key}}}, {{nkey: {key}}}] }} }}");
    for (text, reason) in [
        (twice.as_str(), "Duplicate nkey"),
        ("accounts: [A, A]", "Duplicate Account Entry: A"),
        ("accounts { $G {} }", "\"$G\" is a Reserved Account"),
        ("accounts { 'a b' {} }", "cannot be the name of an account"),
        ("accounts { A: 1 }", "Expected map entries for accounts"),
        (
            "accounts { A { nkey: U } }",
            "Not a valid public nkey for an account",
        ),
        (
            "accounts { A { users: [{nkey: U}] } }",
            "Not a valid public nkey for a user",
        ),
        (
            "accounts { A { users: [{user: a}] }, B { users: [{user: a}] } }",
            "Duplicate user \"a\"",
        ),
        (
            "authorization { users: [{user: a}] }, accounts { B { users: [{user: a}] } }",
            "Duplicate user \"a\"",
        ),
        (
            "authorization { token: t }, accounts { B { users: [{user: a}] } }",
            "Can not have a token and accounts",
        ),
        (
            "authorization { user: t }, accounts { B { users: [{user: a}] } }",
            "Can not have a single user/pass and accounts",
        ),
        (
            "accounts { A { jetstream: maybe } }",
            "Expected 'enabled' or 'disabled'",
        ),
        (
            "accounts { A { jetstream: { cluster_traffic: owner } } }",
            "not supported",
        ),
        (
            "accounts { A { jetstream: { max_pets: 1 } } }",
            "unknown field \"max_pets\"",
        ),
        (
            "accounts { A { limits: { max_leafs: 1 } } }",
            "not supported",
        ),
        ("accounts { A { mappings: { a: b } } }", "not supported"),
        ("accounts { A { msg_trace: a } }", "not supported"),
        (
            "accounts { A { nonsense: 1 } }",
            "unknown field \"nonsense\"",
        ),
        (
            "accounts { $SYS { jetstream: true } }",
            "can not be enabled on the system account",
        ),
        ("system_account: S", "account \"S\" is missing"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(reason), "{text}: {refusal}");
    }
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
    ] {
        let error = refusal(wrong);
        assert!(error.contains(why), "{wrong}: {error}");
    }
}
