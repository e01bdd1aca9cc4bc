use super::*;
use crate::config::options::{AccountOptions, Authorization};

fn authenticator(options: &Options) -> Authenticator {
    Authenticator::new(options, &Broker::new()).unwrap()
}

fn with_authorization(authorization: Authorization) -> Authenticator {
    authenticator(&Options {
        authorization,
        ..Options::default()
    })
}

fn check_with(authenticator: &Authenticator, request: &ConnectRequest, nonce: &str) -> Verdict {
    authenticator.check(&Credentials {
        request,
        nonce,
        peer: None,
        way: ConnectionType::Standard,
        before: None,
    })
}

fn request(json: &str) -> ConnectRequest {
    ConnectRequest::parse(json.as_bytes()).unwrap()
}

fn is_granted(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Granted(_) => true,
        Verdict::Refused => false,
        Verdict::Hash(check) => check.run().is_some(),
    }
}

#[test]
fn a_user_needs_its_password_plain_or_hashed() {
    let user = |name: &str, password: &str| ConfiguredUser {
        name: name.into(),
        password: password.into(),
        ..ConfiguredUser::default()
    };
    let hash = bcrypt::hash("secret", 4).unwrap();
    let authenticator = with_authorization(Authorization {
        users: vec![user("a", "a"), user("h", &hash)],
        no_auth_user: Some("a".into()),
        ..Default::default()
    });
    let check = |json| is_granted(check_with(&authenticator, &request(json), ""));
    assert!(authenticator.is_required());
    assert!(check(r#"{"user":"a","pass":"a"}"#));
    assert!(check(r#"{"user":"h","pass":"secret"}"#));
    assert!(check("{}"));
    assert!(!check(r#"{"user":"a","pass":"aa"}"#));
    assert!(!check(r#"{"user":"a"}"#));
    assert!(!check(r#"{"user":"h","pass":"Secret"}"#));
    assert!(!check(r#"{"auth_token":"a"}"#));
}

#[test]
fn a_token_stands_for_everybody() {
    let authenticator = with_authorization(Authorization {
        token: Some("t".into()),
        ..Default::default()
    });
    let check = |json| is_granted(check_with(&authenticator, &request(json), ""));
    assert!(check(r#"{"auth_token":"t"}"#));
    assert!(!check(r#"{"user":"t"}"#));
    assert!(!check("{}"));
}

#[test]
fn without_authorization_everybody_may_connect() {
    let authenticator = with_authorization(Authorization::default());
    assert!(!authenticator.is_required());
    assert!(is_granted(check_with(
        &authenticator,
        &request(r#"{"user":"x"}"#),
        ""
    )));
}

fn account_of(verdict: Verdict) -> String {
    match verdict {
        Verdict::Granted(login) => login.account.name().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_user_with_a_key_signs_the_nonce_that_it_was_given() {
    let key = KeyPair::new_user();
    let authenticator = authenticator(&Options {
        accounts: vec![AccountOptions {
            name: "A".into(),
            nkeys: vec![NkeyUser {
                nkey: key.public_key(),
                ..NkeyUser::default()
            }],
            ..AccountOptions::default()
        }],
        ..Options::default()
    });
    assert!(authenticator.needs_nonce());
    let nonce = new_nonce().unwrap();
    assert_eq!(nonce.len(), 15);
    let signed = |key: &KeyPair, text: &str| {
        let signature = URL_SAFE_NO_PAD.encode(key.sign(text.as_bytes()).unwrap());
        let nkey = key.public_key();
        request(&format!(r#"{{"nkey":"{nkey}","sig":"{signature}"}}"#))
    };
    let mine = signed(&key, &nonce);
    assert_eq!(account_of(check_with(&authenticator, &mine, &nonce)), "A");
    let another = new_nonce().unwrap();
    assert!(!is_granted(check_with(&authenticator, &mine, &another)));
    assert!(!is_granted(check_with(&authenticator, &mine, "")));
    let stranger = signed(&KeyPair::new_user(), &nonce);
    assert!(!is_granted(check_with(&authenticator, &stranger, &nonce)));
    let unsigned = request(&format!(r#"{{"nkey":"{}"}}"#, key.public_key()));
    assert!(!is_granted(check_with(&authenticator, &unsigned, &nonce)));
}

#[test]
fn with_users_for_the_system_account_alone_everybody_else_stays_in_the_global_one() {
    let of_account = |name: &str| Options {
        accounts: vec![AccountOptions {
            name: name.into(),
            users: vec![ConfiguredUser {
                name: "admin".into(),
                password: "s".into(),
                ..ConfiguredUser::default()
            }],
            ..AccountOptions::default()
        }],
        ..Options::default()
    };
    let system = authenticator(&of_account("$SYS"));
    let admin = request(r#"{"user":"admin","pass":"s"}"#);
    assert_eq!(account_of(check_with(&system, &admin, "")), "$SYS");
    assert_eq!(account_of(check_with(&system, &request("{}"), "")), "$G");
    let other = authenticator(&of_account("A"));
    assert_eq!(account_of(check_with(&other, &admin, "")), "A");
    assert!(!is_granted(check_with(&other, &request("{}"), "")));
}

#[test]
fn who_has_proven_a_hashed_password_once_need_not_again() {
    let hash = bcrypt::hash("secret", 4).unwrap();
    let with_hash = |hash: &str| {
        with_authorization(Authorization {
            user: Some("a".into()),
            password: Some(hash.into()),
            ..Default::default()
        })
    };
    let said = request(r#"{"user":"a","pass":"secret"}"#);
    let Verdict::Hash(slow) = check_with(&with_hash(&hash), &said, "") else {
        panic!("hashes are compared elsewhere");
    };
    let login = slow.run().unwrap();
    let again = |authenticator: Authenticator| {
        authenticator.check(&Credentials {
            request: &said,
            nonce: "",
            peer: None,
            way: ConnectionType::Standard,
            before: Some(&login),
        })
    };
    assert!(matches!(again(with_hash(&hash)), Verdict::Granted(_)));
    let other = bcrypt::hash("other", 4).unwrap();
    let Verdict::Hash(slow) = again(with_hash(&other)) else {
        panic!("another hash has to be proven");
    };
    assert!(slow.run().is_none());
}

#[test]
fn a_certificate_names_its_user_by_a_further_name_or_its_subject() {
    let user = |name: &str| ConfiguredUser {
        name: name.into(),
        ..ConfiguredUser::default()
    };
    let authenticator = authenticator(&Options {
        tls: Some(TlsOptions {
            maps_users: true,
            ..TlsOptions::default()
        }),
        authorization: Authorization {
            users: vec![
                user("derek@nats.io"),
                user("CN=n, O=Synadia"),
                user("nobody"),
            ],
            ..Authorization::default()
        },
        ..Options::default()
    });
    let named = |peer: Option<&PeerIdentity>, maps: bool| {
        let said = request(r#"{"user":"nobody"}"#);
        let credentials = Credentials {
            request: &said,
            nonce: "",
            peer,
            way: ConnectionType::Standard,
            before: None,
        };
        let Scheme::Users(users) = &authenticator.scheme else {
            panic!("there are users");
        };
        match users.check(&credentials, maps) {
            Verdict::Granted(login) => Some(login.user),
            _ => None,
        }
    };
    let by_mail = PeerIdentity {
        emails: vec!["ivan@nats.io".into(), "derek@nats.io".into()],
        ..PeerIdentity::default()
    };
    assert_eq!(
        named(Some(&by_mail), true).as_deref(),
        Some("derek@nats.io")
    );
    let by_subject = PeerIdentity {
        subject: DistinguishedName::parse("O=Synadia,CN=n"),
        ..PeerIdentity::default()
    };
    assert_eq!(
        named(Some(&by_subject), true).as_deref(),
        Some("CN=n, O=Synadia")
    );
    assert_eq!(named(Some(&PeerIdentity::default()), true), None);
    assert_eq!(named(None, true), None);
    // Without a password the name alone is not believed on a listener that asks for no certificates.
    assert_eq!(named(None, false), None);
}
