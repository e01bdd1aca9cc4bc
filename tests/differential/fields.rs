//! What requests are drawn from: for every field the values that are good somewhere, and those that are good nowhere.
//!
//! Values are JSON as text. `@LONG@` stands for a text that is too long for a description, `@PAST@` and `@FUTURE@` for times
//! an hour from now, `@MARK@` for the moment that the scenario marked last.

/// A field, values that fit some configuration, values that are refused or adjusted.
pub type Field = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

/// Fields of a stream's configuration, but for its name and its subjects.
pub const STREAM: &[Field] = &[
    (
        "description",
        &[r#""some text""#, r#""""#],
        &[r#""@LONG@""#, "7"],
    ),
    (
        "retention",
        &[r#""limits""#, r#""interest""#, r#""workqueue""#],
        &[r#""forever""#, "0"],
    ),
    ("max_consumers", &["-1", "0", "1", "3"], &["-2", "\"1\""]),
    (
        "max_msgs",
        &["-1", "0", "3", "8"],
        &["-2", "9223372036854775808"],
    ),
    (
        "max_bytes",
        &["-1", "0", "700", "100000"],
        &["-5", "1099511627776000"],
    ),
    (
        "max_age",
        // None that ends within a scenario: the two look for what is too old at their own pace.
        &["0", "3600000000000"],
        &["1", "99999999", "-1"],
    ),
    ("max_msgs_per_subject", &["-1", "0", "1", "2"], &["-2"]),
    (
        "max_msg_size",
        &["-1", "0", "64", "1024"],
        &["-2", "2147483648"],
    ),
    ("discard", &[r#""old""#, r#""new""#], &[r#""newest""#]),
    ("storage", &[r#""file""#, r#""memory""#], &[r#""tape""#]),
    ("num_replicas", &["0", "1"], &["3", "6", "-1", "2"]),
    ("no_ack", &["true", "false"], &["1"]),
    (
        "duplicate_window",
        &["0", "120000000000", "100000000", "3600000000000"],
        &["1", "-1", "99999999", "7200000000000"],
    ),
    (
        "placement",
        &["null", "{}"],
        &[
            r#"{"cluster":"nowhere"}"#,
            r#"{"tags":["a","b"]}"#,
            r#"{"preferred":"someone"}"#,
        ],
    ),
    ("compression", &[r#""none""#, r#""s2""#], &[r#""zip""#]),
    ("first_seq", &["0", "1", "10", "1000"], &["-1"]),
    (
        "subject_transform",
        &[
            r#"{"src":"s.a.*","dest":"s.t.{{wildcard(1)}}"}"#,
            r#"{"src":">","dest":">"}"#,
            r#"{"src":"s.b.>","dest":"s.moved.>"}"#,
            r#"{"src":"","dest":"all.>"}"#,
        ],
        &[
            r#"{"src":"s..a","dest":"x"}"#,
            r#"{"src":"s.*","dest":"x.{{wildcard(2)}}"}"#,
            r#"{"src":"s.*","dest":"x.{{nonsense(1)}}"}"#,
            r#"{"src":"s.>","dest":""}"#,
        ],
    ),
    (
        "republish",
        &[
            r#"{"src":">","dest":"repub.>"}"#,
            r#"{"src":"s.a.>","dest":"repub.a.>","headers_only":true}"#,
            r#"{"dest":"repub.all.>"}"#,
        ],
        &[
            r#"{"src":">","dest":"s.a.>"}"#,
            r#"{"src":"s.*.*","dest":"repub.{{wildcard(3)}}"}"#,
            r#"{"src":">"}"#,
            r#"{"src":"other.>","dest":"repub.>"}"#,
        ],
    ),
    ("allow_direct", &["true", "false"], &["\"yes\""]),
    ("mirror_direct", &["false"], &["true"]),
    ("discard_new_per_subject", &["false", "true"], &[]),
    ("sealed", &["false"], &["true"]),
    ("deny_delete", &["true", "false"], &[]),
    ("deny_purge", &["true", "false"], &[]),
    ("allow_rollup_hdrs", &["true", "false"], &[]),
    (
        "consumer_limits",
        &[
            "{}",
            r#"{"max_ack_pending":5}"#,
            r#"{"inactive_threshold":60000000000}"#,
            r#"{"inactive_threshold":60000000000,"max_ack_pending":100}"#,
        ],
        &[r#"{"max_ack_pending":-1}"#, r#"{"inactive_threshold":-1}"#],
    ),
    ("allow_msg_ttl", &["true", "false"], &[]),
    (
        "subject_delete_marker_ttl",
        &["0", "1000000000", "60000000000"],
        &["1", "-1", "1500000000"],
    ),
    ("allow_msg_counter", &["true", "false"], &[]),
    ("allow_atomic", &["true", "false"], &[]),
    ("allow_batched", &["true", "false"], &[]),
    ("allow_msg_schedules", &["true", "false"], &[]),
    (
        "persist_mode",
        &[r#""default""#, r#""""#, r#""async""#],
        &[r#""never""#],
    ),
    (
        "metadata",
        &[r#"{"owner":"me"}"#, "{}", r#"{"a":"1","b":"2"}"#],
        &[
            r#"{"_nats.ver":"9.9.9"}"#,
            r#"{"_nats.req.level":"9"}"#,
            r#"{"a":1}"#,
        ],
    ),
    (
        "mirror",
        &["null"],
        &[
            r#"{"name":"NOWHERE"}"#,
            r#"{"name":""}"#,
            r#"{"name":"NOWHERE","opt_start_seq":5,"opt_start_time":"@PAST@"}"#,
            r#"{"name":"NOWHERE","filter_subject":"a..b"}"#,
            r#"{"name":"NOWHERE","filter_subject":"a","subject_transforms":[{"src":"a","dest":"b"}]}"#,
            r#"{"name":"NOWHERE","external":{"api":"","deliver":""}}"#,
        ],
    ),
    (
        "sources",
        &["[]", "null"],
        &[
            r#"[{"name":"NOWHERE"},{"name":"NOWHERE"}]"#,
            r#"[{"name":"NOWHERE","filter_subject":"a.b"},{"name":"NOWHERE","filter_subject":"a.c"}]"#,
            r#"[{"name":""}]"#,
            r#"[{"name":"NOWHERE","opt_start_seq":5,"opt_start_time":"@PAST@"}]"#,
            r#"[{"name":"NOWHERE","subject_transforms":[{"src":"a..b","dest":"b"}]}]"#,
            r#"[{"name":"NOWHERE","subject_transforms":[{"src":"a","dest":"b"},{"src":"a","dest":"c"}]}]"#,
        ],
    ),
    ("pedantic", &["false"], &["true"]),
    ("nonsense", &[], &["true"]),
];

/// What a stream listens to; names and subjects stay apart from those of other scenarios by `s`.
pub const STREAM_SUBJECTS: &[&str] = &[
    r#"["s.>"]"#,
    r#"["s.>"]"#,
    r#"["s.>"]"#,
    r#"["s.a.*","s.b.>","s.c"]"#,
    r#"["s.*.*","s.*"]"#,
];
/// What a stream must not listen to.
pub const STREAM_SUBJECTS_WILD: &[&str] = &[
    r#"["s.>","s.a"]"#,
    r#"["s..a"]"#,
    r#"["s.a","s.a"]"#,
    r#"["$JS.API.>"]"#,
    r#"["$JS.EVENT.ADVISORY.X"]"#,
    r#"["$SYS.>"]"#,
    r#"[">"]"#,
    r#"["s a"]"#,
    r#"[""]"#,
    "[]",
    "null",
];

/// Fields of a consumer's configuration, but for its names.
pub const CONSUMER: &[Field] = &[
    ("description", &[r#""some text""#], &[r#""@LONG@""#]),
    (
        "deliver_policy",
        &[r#""all""#, r#""last""#, r#""new""#, r#""last_per_subject""#],
        &[r#""by_start_sequence""#, r#""by_start_time""#, r#""first""#],
    ),
    ("opt_start_seq", &[], &["1", "0", "5", "-1"]),
    ("opt_start_time", &[], &[r#""@MARK@""#, r#""yesterday""#]),
    (
        "ack_policy",
        &[r#""explicit""#, r#""explicit""#, r#""all""#, r#""none""#],
        &[r#""flow_control""#, r#""some""#],
    ),
    (
        "ack_wait",
        &["0", "30000000000", "60000000000"],
        &["-1", "1"],
    ),
    ("max_deliver", &["-1", "0", "3"], &["-2"]),
    (
        "backoff",
        &["null", "[]"],
        &[
            "[30000000000]",
            "[1,2,3]",
            "[0]",
            "[-1]",
            "[1000000000,2000000000,3000000000,4000000000]",
        ],
    ),
    (
        "filter_subject",
        &[
            r#""s.a.*""#,
            r#""s.a.1""#,
            r#""s.>""#,
            r#""""#,
            r#""s.b.x""#,
        ],
        &[r#""s..a""#, r#""other""#, r#""s. a""#, r#"">""#],
    ),
    (
        "filter_subjects",
        &[r#"["s.a.1","s.b.>"]"#, r#"["s.a.*"]"#, "[]", "null"],
        &[
            r#"["s.a.*","s.a.1"]"#,
            r#"["s.a.1","s.a.1"]"#,
            r#"["other","s.a.1"]"#,
            r#"[""]"#,
            r#"["s..a","s.b"]"#,
        ],
    ),
    // `original` waits as long as lay between the messages, which differs from one server to the other.
    ("replay_policy", &[r#""instant""#], &[r#""slow""#]),
    ("rate_limit_bps", &["0"], &["1000000", "-1"]),
    (
        "sample_freq",
        &[r#""""#, r#""100""#, r#""0""#, r#""50%""#],
        &[r#""often""#, r#""-1""#, r#""101%""#],
    ),
    ("max_waiting", &["0", "1", "5", "512"], &["-1", "-5"]),
    ("max_ack_pending", &["0", "-1", "2", "1000"], &["-2"]),
    ("flow_control", &["false"], &["true"]),
    ("headers_only", &["true", "false"], &[]),
    ("max_batch", &["0", "2", "100"], &["-1"]),
    ("max_expires", &["0", "5000000000"], &["1", "-1", "999999"]),
    ("max_bytes", &["0", "300", "100000"], &["-1"]),
    ("deliver_group", &[], &[r#""q""#, r#""q q""#, r#""q.*""#]),
    (
        "idle_heartbeat",
        &["0"],
        &["60000000000", "1", "-1", "99999999"],
    ),
    ("inactive_threshold", &["0", "60000000000"], &["-1"]),
    ("num_replicas", &["0", "1"], &["3", "-1", "7"]),
    ("mem_storage", &["true", "false"], &[]),
    ("direct", &["false"], &[]),
    ("sourcing", &["false"], &[]),
    (
        "metadata",
        &[r#"{"owner":"me"}"#, "{}"],
        &[r#"{"_nats.level":"1"}"#, r#"{"a":1}"#],
    ),
    (
        "pause_until",
        &[r#""@PAST@""#],
        &[r#""@FUTURE@""#, r#""soon""#],
    ),
    (
        "priority_groups",
        &[],
        &[
            r#"["g"]"#,
            r#"["g","h"]"#,
            "[]",
            r#"["a b"]"#,
            r#"[""]"#,
            r#"["a-group-of-seventeen"]"#,
        ],
    ),
    (
        "priority_policy",
        &[r#""none""#, r#""""#],
        &[
            r#""overflow""#,
            r#""pinned_client""#,
            r#""prioritized""#,
            r#""first""#,
        ],
    ),
    ("priority_timeout", &[], &["5000000000", "1", "-1"]),
    ("nonsense", &[], &["1"]),
];

/// Groups of fields that make sense together only.
pub const CONSUMER_KINDS: &[&str] = &[
    "",
    "",
    "",
    r#""deliver_subject":"push.@N@""#,
    r#""deliver_subject":"push.@N@","idle_heartbeat":30000000000,"flow_control":true"#,
    r#""deliver_subject":"push.@N@","deliver_group":"q""#,
    r#""deliver_policy":"by_start_sequence","opt_start_seq":3"#,
    r#""deliver_policy":"by_start_time","opt_start_time":"@MARK@""#,
    r#""priority_groups":["g"],"priority_policy":"overflow""#,
    r#""priority_groups":["g"],"priority_policy":"pinned_client","priority_timeout":60000000000"#,
    r#""priority_groups":["g"],"priority_policy":"prioritized""#,
    r#""backoff":[30000000000,60000000000],"max_deliver":3"#,
    r#""ack_policy":"flow_control","deliver_subject":"push.@N@","flow_control":true,"idle_heartbeat":30000000000"#,
];

/// Bodies of pull requests.
pub const PULL: &[Field] = &[
    ("batch", &["1", "2", "3", "10"], &["0", "-1", "1000"]),
    ("no_wait", &["true", "true", "false"], &[]),
    (
        "expires",
        &["100000000", "200000000"],
        &["0", "-1", "10000000000000"],
    ),
    ("max_bytes", &["100", "250", "1000"], &["1", "-1", "0"]),
    ("idle_heartbeat", &["0"], &["60000000000", "1"]),
    ("group", &[r#""g""#], &[r#""h""#, r#""""#]),
    ("min_pending", &["1", "4"], &["-1"]),
    ("min_ack_pending", &["1", "2"], &["-1"]),
    ("id", &[r#""@PIN@""#], &[r#""wrong""#]),
    ("priority", &["0", "1", "9"], &["10", "-1"]),
    ("nonsense", &[], &["1"]),
];

/// Bodies of direct gets and of gets over the API.
pub const GET: &[Field] = &[
    ("seq", &["1", "2", "3", "7", "12"], &["0", "1000000", "-1"]),
    (
        "last_by_subj",
        &[r#""s.a.1""#, r#""s.b.x""#, r#""s.a.*""#],
        &[r#""""#, r#""s..x""#, r#""nothing""#],
    ),
    (
        "next_by_subj",
        &[r#""s.a.1""#, r#""s.>""#, r#""s.*.2""#],
        &[r#""nothing""#, r#""s..x""#],
    ),
    (
        "start_time",
        &[r#""@MARK@""#],
        &[r#""@FUTURE@""#, r#""@PAST@""#, r#""now""#],
    ),
    ("no_hdr", &["true", "false"], &[]),
];
/// Further fields that direct gets have.
pub const GET_BATCH: &[Field] = &[
    // Of less than one message the reference sends the end only.
    ("batch", &["1", "2", "5", "100"], &["0"]),
    ("max_bytes", &["100", "1000"], &["1", "-1"]),
    (
        "multi_last",
        &[r#"["s.a.*"]"#, r#"["s.a.1","s.b.x"]"#, r#"["s.>"]"#],
        &["[]", r#"["nothing"]"#, r#"["s..a"]"#],
    ),
    ("up_to_seq", &["3", "8"], &["0", "1000000"]),
    (
        "up_to_time",
        &[r#""@MARK@""#],
        &[r#""@FUTURE@""#, r#""@PAST@""#],
    ),
];

/// Headers of publishes: values that streams take, and values that no stream takes.
pub const HEADERS: &[Field] = &[
    ("Nats-Msg-Id", &["a", "b", "c", "a-longer-one"], &[""]),
    ("Nats-Expected-Stream", &["@STREAM@"], &["OTHER", ""]),
    (
        "Nats-Expected-Last-Sequence",
        &["@LAST@"],
        &["0", "1", "-1", "x", ""],
    ),
    (
        "Nats-Expected-Last-Subject-Sequence",
        &["0", "@LAST@"],
        &["1", "x", "-1"],
    ),
    (
        "Nats-Expected-Last-Subject-Sequence-Subject",
        &["s.a.1", "s.a.*"],
        &["s..a", "nothing", ""],
    ),
    ("Nats-Expected-Last-Msg-Id", &["a", "b"], &["never"]),
    ("Nats-Rollup", &["sub", "all"], &["some", ""]),
    (
        "Nats-TTL",
        &["3600", "1h", "never", "3600s"],
        &["0", "-1", "soon", "1ms", "500ms", ""],
    ),
    (
        "Nats-Incr",
        &["+1", "-2", "5", "+100000000000000000000"],
        &["x", "1.5", "", "+"],
    ),
    ("Nats-Marker-Reason", &[], &["MaxAge"]),
    ("KV-Operation", &["DEL", "PURGE"], &["PUT"]),
    (
        "Nats-Schedule",
        &["@at 2099-01-01T00:00:00Z", "@every 1h", "0 0 0 1 1 *"],
        &["@at never", "@every 1ms", "sometimes"],
    ),
    (
        "Nats-Schedule-Target",
        &["s.a.target"],
        &["s.*", "nothing", ""],
    ),
    ("Nats-Schedule-Source", &["s.a.1"], &["s.*", ""]),
    ("Nats-Schedule-TTL", &["1h"], &["x", "1ms"]),
    ("Nats-Schedule-Time-Zone", &["Europe/Paris"], &["Mars"]),
    ("Nats-Schedule-Rollup", &["sub"], &["all", "x"]),
    (
        "Nats-Batch-Id",
        &["batch1", "batch2"],
        &[
            "",
            "a-batch-whose-name-is-longer-than-the-sixty-four-bytes-that-it-may-have",
        ],
    ),
    (
        "Nats-Batch-Sequence",
        &["1", "2", "3"],
        &["0", "x", "-1", "9"],
    ),
    ("Nats-Batch-Commit", &["1", "eob"], &["0", "x"]),
    ("Nats-Required-Api-Level", &["0", "1", "4"], &["5", "x"]),
    ("Some-Header", &["value"], &[]),
];

/// Bodies of acks.
pub const ACKS: &[&str] = &[
    "+ACK",
    "+ACK",
    "+ACK",
    "",
    "+OK",
    "-NAK",
    "-NAK",
    "-NAK {\"delay\": 50000000}",
    "-NAK 60s",
    "-NAK nonsense",
    "+WPI",
    "+NXT",
    "+NXT 2",
    "+NXT {\"batch\":2,\"no_wait\":true}",
    "+TERM",
    "+TERM because",
    "+NONSENSE",
    "+ACK ",
];
