//! Who may connect, and accounts.

use super::*;

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
fn an_account_has_limits_for_streams_with_so_many_replicas() {
    let options = options(
        "accounts { A { jetstream: { tiers: { R1: { max_file: 1MB }, r3: { max_streams: 2 } } } } }",
    );
    let account = &options.accounts[0];
    assert_eq!(account.jetstream, Some(AccountJetStream::default()));
    let first = AccountJetStream {
        file_bytes_max: 1 << 20,
        ..AccountJetStream::default()
    };
    let third = AccountJetStream {
        streams_max: 2,
        ..AccountJetStream::default()
    };
    assert_eq!(account.jetstream_tiers, [(1, first), (3, third)].into());
}

#[test]
fn accounts_that_make_no_sense_are_refused() {
    let key = nkeys::KeyPair::new_user().public_key();
    let twice = format!("accounts {{ A {{ users: [{{nkey: {key}}}, {{nkey: {key}}}] }} }}");
    for (text, reason) in [
        (twice.as_str(), "Duplicate nkey"),
        ("accounts: [A, A]", "Duplicate Account Entry: A"),
        (
            "accounts { A { jetstream: { max_file: 1MB, tiers: { R1: {} } } } }",
            "exclude each other",
        ),
        (
            "accounts { A { jetstream: { tiers: { R6: {} } } } }",
            "a tier is called R1 to R5",
        ),
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
        (
            "accounts { A { mappings: { 'a..b': b } } }",
            "Subject \"a..b\" is not a valid subject",
        ),
        (
            "mappings: { 'a.*': 'b.$2' }",
            "Error adding mapping for \"a.*\" to \"b.$2\" : invalid mapping destination: wildcard index out of range in $2: [2]",
        ),
        (
            "mappings: { a: [{dest: b, weight: 60%}, {dest: c, weight: 60}] }",
            "Error adding mapping for \"a\" : total weight needs to be <= 100",
        ),
        (
            "mappings: { a: {dest: b} }",
            "Missing weight for mapping destination \"b\"",
        ),
        (
            "mappings: { a: {dest: b, weight: many%} }",
            "Invalid weight \"many\" for mapping destination",
        ),
        (
            "mappings: { a: {dest: b, weight: 101} }",
            "Invalid weight 101 for mapping destination",
        ),
        (
            "accounts { A { msg_trace: a.* } }",
            "Trace destination \"a.*\" is not valid",
        ),
        (
            "accounts { A { trace_dest: {dest: a, sampling: 101} } }",
            "needs to be [1..100]",
        ),
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
fn an_account_says_where_reports_on_traced_messages_go() {
    let of = |text: &str| {
        let text = format!("accounts {{ A {{ msg_trace: {text} }} }}");
        let options = options(&text);
        let trace = options.accounts[0].trace.clone().unwrap();
        (trace.destination, trace.percent)
    };
    assert_eq!(of("a.b"), ("a.b".to_owned(), 100));
    assert_eq!(of("{dest: a, sampling: 5}"), ("a".to_owned(), 5));
    assert_eq!(of("{dest: a, sampling: \"50%\"}"), ("a".to_owned(), 50));
}
