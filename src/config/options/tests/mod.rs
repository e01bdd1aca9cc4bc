//! Options out of files and command lines.

mod jetstream;
mod listeners;
mod users;

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
fn every_problem_is_reported_with_its_place_in_the_order_of_the_file() {
    let fake = Fake {
        files: HashMap::from([(
            PathBuf::from("conf/a.conf"),
            b"port: x\n\n  debug: 3\nnonsense: 1\njetstream {\n  tpm: hub\n}\n".to_vec(),
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
            "conf/a.conf:6:3: \"tpm\" is not supported by this server yet: keys in a trusted platform module are not built",
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
fn what_happens_when_a_write_takes_too_long_is_chosen_for_clients_and_for_routes() {
    let of = |text| {
        let options = options(text);
        (options.timing.write_timeout, options.cluster.write_timeout)
    };
    assert_eq!(of("cluster { name: c }"), (None, None));
    assert_eq!(
        of("write_timeout: retry, cluster { name: c, write_timeout: close }"),
        (Some(WriteTimeout::Retry), Some(WriteTimeout::Close))
    );
    assert_eq!(of("write_timeout: default"), (None, None));
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
fn flags_for_monitoring_and_profiling_are_laid_over_the_file() {
    let tls = "tls { cert_file: a.pem, key_file: a.key }";
    let encrypted = ["-c", "test.conf", "-ms", "8443", "--profile=-1"];
    let options = command_line(&encrypted, Some(tls)).unwrap();
    let monitor = options.monitor.unwrap();
    assert!(monitor.is_encrypted());
    assert_eq!(monitor.listens_on(), Port::Fixed(8443));
    assert_eq!(options.profiling_port, Some(Port::Random));
    let none = command_line(&["-ms", "0", "--profile=0"], None).unwrap();
    assert!(none.monitor.is_none() && none.profiling_port.is_none());
}

#[test]
fn what_a_server_says_of_itself_is_read() {
    let options = options(
        "server_tags: [\"az:1\", \" SSD \", ssd], server_metadata { Owner: x }\n\
         feature_flags { js_ack_fc_v2: false, of_tomorrow: true }\n\
         connect_error_reports: 5, reconnect_error_reports: 0, no_system_account: true",
    );
    assert_eq!(options.server_tags, ["az:1", "ssd"]);
    assert_eq!(options.server_metadata["Owner"], "x");
    assert_eq!(options.warnings.len(), 1);
    assert!(options.warnings[0].contains("of_tomorrow"));
    assert_eq!(options.dial_reports.connect_every, 5);
    assert_eq!(options.dial_reports.reconnect_every, 1);
    assert!(!options.has_system_account());
    assert!(!options.feature_flags.is_on("js_ack_fc_v2"));
    let on = super::tests::options("feature_flags { js_ack_fc_v2: true }").feature_flags;
    assert!(on.is_on("js_ack_fc_v2") && !on.known()["js_raft_delete_range"]);
    let (known, unknown) = options
        .feature_flags
        .shown()
        .expect("something is configured");
    assert_eq!(known, "js_ack_fc_v2 (disabled)");
    assert_eq!(unknown.as_deref(), Some("of_tomorrow"));
    assert!(refusal("feature_flags { js_ack_fc_v2: 1 }").contains("boolean"));
    assert!(refusal("prof_block_rate: 1").contains("not supported"));
}

#[test]
fn flags_say_what_clients_are_told() {
    let advertised = command_line(&["--client_advertise", "x"], None).unwrap();
    assert_eq!(advertised.client_advertise, Some(("x".into(), None)));
    let wrong = command_line(&["--client_advertise", "x:y"], None).unwrap_err();
    assert!(wrong.to_string().contains("invalid ClientAdvertise value"));
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
