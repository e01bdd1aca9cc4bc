//! `nats-tool filestore` on block files as they are, damaged ones too.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use storage::block::{BlockIdentity, encode_block};
use storage::codec::Compression;
use storage::disk::RealDisk;
use storage::entropy::SeededEntropy;
use storage::seal::{Cipher, KeyRing};
use storage::store::{Expiry, NewMessage};

const RECORDS: u64 = 2000;
const PASSPHRASE: &str = "a long and random passphrase";

/// A stream's directory with one sealed block, and a key file when there is a cipher.
fn stream(compression: Compression, cipher: Option<Cipher>) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let entropy = SeededEntropy::new(1);
    let ring = cipher.map(|cipher| {
        let passphrase = PASSPHRASE.as_bytes();
        KeyRing::open(
            &RealDisk,
            directory.path(),
            passphrase,
            None,
            cipher,
            &entropy,
        )
        .unwrap()
    });
    let identity = BlockIdentity {
        stream: 7,
        number: 3,
        generation: 1,
        first_sequence: 1,
        cipher,
        compression,
    };
    let subjects: Vec<String> = (0..10).map(|at| format!("orders.{at}")).collect();
    let payloads: Vec<String> = (1..=RECORDS)
        .map(|at| format!("payload number {at}"))
        .collect();
    let messages = payloads.iter().enumerate().map(|(at, payload)| NewMessage {
        sequence: at as u64 + 1,
        time_ns: 1_700_000_000_000_000_000 + at as i64 * 1_000_000_000,
        subject: subjects[at % 10].as_bytes(),
        headers: if at == 4 {
            b"NATS/1.0\r\nA: b\r\n\r\n"
        } else {
            b""
        },
        payload: payload.as_bytes(),
        expiry: if at == 4 {
            Expiry::Never
        } else {
            Expiry::ByAge
        },
    });
    let file = encode_block(identity, ring.as_ref(), &entropy, messages).unwrap();
    let path = directory.path().join("00000003-0001.block");
    std::fs::write(&path, file).unwrap();
    (directory, path)
}

fn tool(arguments: &[&str], path: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nats-tool"))
        .arg("filestore")
        .args(arguments)
        .arg(path)
        .env_remove("NATS_JETSTREAM_KEY")
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn inspect_says_what_a_block_holds() {
    let (directory, path) = stream(Compression::S2, None);
    for place in [directory.path(), &path] {
        let output = tool(&["inspect", "--json"], place);
        assert!(output.status.success(), "{output:?}");
        let report = json(&output);
        let block = &report["streams"][0]["blocks"][0];
        assert_eq!(block["stream"], 7);
        assert_eq!(
            (&block["number"], &block["generation"]),
            (&3.into(), &1.into())
        );
        assert_eq!(block["first_sequence"], 1);
        assert_eq!(block["last_sequence"], RECORDS);
        assert_eq!(block["first_time"], "2023-11-14T22:13:20Z");
        assert_eq!(
            (&block["records"], &block["live"]),
            (&RECORDS.into(), &RECORDS.into())
        );
        assert_eq!(block["subjects"], 10);
        assert_eq!(block["compression"], "s2");
        assert_eq!(block["cipher"], "none");
        assert_eq!(
            (&block["footer"], &block["checksums"]),
            (&"intact".into(), &"intact".into())
        );
        assert!(block["stored_bytes"].as_u64() < block["raw_bytes"].as_u64());
        assert_eq!(block["problems"], Value::Array(vec![]));

        let table = text(&tool(&["inspect"], place));
        assert!(
            table.contains("00000003-0001.block") && table.contains("2,000"),
            "{table}"
        );
    }
}

#[test]
fn records_are_listed_and_narrowed_by_sequence() {
    let (directory, _) = stream(Compression::None, None);
    let output = tool(
        &["inspect", "--records", "--json", "--seq", "5-6"],
        directory.path(),
    );
    let lines: Vec<Value> = text(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["sequence"], 5);
    assert_eq!(lines[0]["subject"], "orders.4");
    assert_eq!(lines[0]["headers_bytes"], 18);
    assert_eq!(lines[0]["expires"], "never");
    assert_eq!(lines[1]["payload_bytes"], "payload number 6".len());
    let output = tool(
        &["inspect", "--records", "--seq", "1999-"],
        directory.path(),
    );
    assert_eq!(
        text(&output).lines().count(),
        3,
        "a heading and two records"
    );
    let output = tool(&["inspect", "--records", "--block", "9"], directory.path());
    assert_eq!(text(&output).lines().count(), 1, "a heading only");
}

#[test]
fn cat_writes_payloads_or_lines_of_json() {
    let (directory, _) = stream(Compression::S2, None);
    let output = tool(&["cat", "--raw", "--seq", "7-8"], directory.path());
    assert_eq!(text(&output), "payload number 7\npayload number 8\n");
    let output = tool(&["cat"], directory.path());
    assert!(output.status.success());
    assert_eq!(text(&output).lines().count() as u64, RECORDS);
    let fifth: Value = serde_json::from_str(text(&output).lines().nth(4).unwrap()).unwrap();
    assert_eq!(fifth["seq"], 5);
    assert_eq!(fifth["hdrs"], "TkFUUy8xLjANCkE6IGINCg0K");
    assert_eq!(fifth["data"], "cGF5bG9hZCBudW1iZXIgNQ==");
}

#[test]
fn verify_is_content_with_an_intact_block_only() {
    for cipher in [None, Some(Cipher::ChaCha20Poly1305)] {
        let (directory, path) = stream(Compression::S2, cipher);
        let verify = || {
            let key: &[&str] = if cipher.is_some() {
                &["--key", PASSPHRASE]
            } else {
                &[]
            };
            tool(&[&["verify"], key].concat(), directory.path())
        };
        let output = verify();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let length = std::fs::metadata(&path).unwrap().len() as usize;
        for at in [20, 13_000, length / 2, length - 300, length - 3] {
            flip(&path, at);
            let output = verify();
            assert_eq!(
                output.status.code(),
                Some(1),
                "byte {at}: {}",
                text(&output)
            );
            flip(&path, at);
        }
        assert_eq!(verify().status.code(), Some(0));
    }
}

#[test]
fn damage_is_named_and_everything_else_is_still_shown() {
    let (directory, path) = stream(Compression::None, None);
    // Inside the first chunk, whose records are then unreadable one by one.
    flip(&path, 4096 + 72 + 20);
    let report = json(&tool(&["verify", "--json"], directory.path()));
    let problems = report["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0]["severity"], "lost");
    assert_eq!(problems[0]["sequences"][0], 1);

    let output = tool(&["inspect", "--records"], directory.path());
    assert_eq!(output.status.code(), Some(1));
    let listed = text(&output);
    assert!(listed.contains("sequence 1"), "{listed}");
    assert!(
        listed.contains("2,000"),
        "the records behind the damage are listed"
    );
    let output = tool(&["cat", "--raw"], directory.path());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output).lines().count() as u64, RECORDS - 1);

    // A file that ends in the middle.
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let output = tool(&["inspect"], directory.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("unreadable"), "{}", text(&output));
}

#[test]
fn an_encrypted_block_shows_its_outline_without_a_key_and_its_records_with_it() {
    let (directory, path) = stream(Compression::None, Some(Cipher::Aes256Gcm));
    let report = json(&tool(&["inspect", "--json"], directory.path()));
    let block = &report["streams"][0]["blocks"][0];
    assert_eq!(block["cipher"], "aes-256-gcm");
    assert_eq!(block["key_ids"].as_array().unwrap().len(), 1);
    assert_eq!(block["records"], RECORDS);
    assert_eq!(block["live"], Value::Null);

    let output = tool(&["cat"], directory.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no key was given"));
    let output = tool(&["cat", "--key", "a guess"], directory.path());
    assert_eq!(output.status.code(), Some(2));

    let output = tool(&["cat", "--raw", "--seq", "3", "--key", PASSPHRASE], &path);
    assert_eq!(text(&output), "payload number 3\n");
    let key_file = directory.path().join("passphrase");
    std::fs::write(&key_file, format!("{PASSPHRASE}\n")).unwrap();
    let key_file = key_file.to_str().unwrap();
    let output = tool(
        &["cat", "--raw", "--seq", "3", "--key-file", key_file],
        &path,
    );
    assert_eq!(text(&output), "payload number 3\n");
    let report = json(&tool(&["inspect", "--json", "--key", PASSPHRASE], &path));
    assert_eq!(report["streams"][0]["blocks"][0]["live"], RECORDS);
}

#[test]
fn nothing_is_ever_written() {
    let (directory, path) = stream(Compression::S2, Some(Cipher::Aes256Gcm));
    flip(&path, 15_000);
    let listing = |directory: &Path| -> Vec<_> {
        let mut files: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
            .into_iter()
            .map(|path| (std::fs::read(&path).unwrap(), path))
            .collect()
    };
    let before = listing(directory.path());
    for command in [
        &["inspect"][..],
        &["inspect", "--records"],
        &["verify"],
        &["cat"],
    ] {
        tool(
            &[command, &["--key", PASSPHRASE]].concat(),
            directory.path(),
        );
    }
    assert_eq!(listing(directory.path()), before);
}

#[test]
fn what_is_no_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(tool(&["inspect"], directory.path()).status.code(), Some(2));
    assert_eq!(
        tool(&["verify"], &directory.path().join("missing"))
            .status
            .code(),
        Some(2)
    );
    let file = directory.path().join("note.txt");
    std::fs::write(&file, "hello").unwrap();
    let output = tool(&["verify"], &file);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("not a block file"),
        "{}",
        text(&output)
    );
}
