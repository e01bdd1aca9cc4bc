//! What the file says of streams.

use super::*;

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
        "jetstream { max_mem_store: 64MiB, max_file_store: \"10G\", max_buffered_size: 1Gb, max_buffered_msgs: 12, \
         max_outstanding_catchup: 8MB }",
    );
    assert_eq!(options.jetstream.memory_max, StoreLimit::Bytes(64 << 20));
    assert_eq!(options.jetstream.file_max, StoreLimit::Bytes(10 << 30));
    assert_eq!(options.jetstream.buffered_bytes_max, 1 << 30);
    assert_eq!(options.jetstream.buffered_messages_max, 12);
    assert_eq!(options.jetstream.catchup_bytes_max, 8 << 20);
    let dynamic = super::tests::options("jetstream { max_file: -1 }");
    assert_eq!(dynamic.jetstream.file_max, StoreLimit::Dynamic);
    assert!(refusal("jetstream { max_file: '10GiB' }").contains("K, M, G, T"));
    assert!(refusal("jetstream { max_file: '9223372036854775807T' }").contains("K, M, G, T"));
}

#[test]
fn how_much_runs_on_the_disk_at_a_time_can_be_limited() {
    let most = |text: &str| options(text).jetstream.disk_operations_max;
    assert_eq!(most("jetstream: true"), None);
    assert_eq!(most("jetstream { max_concurrent_io: 4 }"), Some(4));
    assert_eq!(most("jetstream { max_concurrent_io: 8192 }"), Some(8192));
    for wrong in ["3", "8193", "-1", "many"] {
        let refused = refusal(&format!("jetstream {{ max_concurrent_io: {wrong} }}"));
        assert!(refused.contains("max_concurrent_io"), "{refused}");
    }
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
    let batches = |text: &str| {
        let options = options(&format!("jetstream {{ limits {{ batch {{ {text} }} }} }}"));
        options.jetstream.limits.batches
    };
    assert_eq!(
        batches("max_inflight_per_stream: 2, max_inflight_total: 3, max_msgs: 1k, timeout: \"5s\""),
        BatchOptions {
            per_stream_max: Some(2),
            total_max: Some(3),
            messages_max: Some(1000),
            idle_max: Some(Duration::from_secs(5)),
        }
    );
    assert_eq!(batches("max_msgs: 0"), BatchOptions::default());
    assert!(refusal("jetstream { limits { batch { max: 1 } } }").contains("unknown field"));
    assert!(refusal("jetstream { limits { batch { max_msgs: -1 } } }").contains("between"));
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
fn when_the_log_of_a_meta_group_is_compacted_can_be_chosen() {
    let compaction = |text: &str| options(text).jetstream.meta_compaction;
    assert_eq!(compaction("jetstream: true"), MetaCompaction::default());
    let chosen = MetaCompaction {
        entries: Some(10),
        bytes: Some(2 << 20),
        waits: true,
    };
    let text = "jetstream { meta_compact: 10, meta_compact_size: '2M', meta_compact_sync: true }";
    assert_eq!(compaction(text), chosen);
    let none = "jetstream { meta_compact: 0, meta_compact_size: 0 }";
    assert_eq!(compaction(none), MetaCompaction::default());
    for wrong in ["meta_compact: -1", "meta_compact_size: -1"] {
        let refused = refusal(&format!("jetstream {{ {wrong} }}"));
        assert!(refused.contains("meta_compact"), "{refused}");
    }
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
