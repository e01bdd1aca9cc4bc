//! Which subject asks what.

use super::requests::{ACCOUNT_SERVICES, OLD_PING, Question, SERVER_SERVICES, USER_INFO};

#[test]
fn every_subject_that_is_listened_on_is_a_question() {
    for service in SERVER_SERVICES {
        for server in ["NAID", "PING"] {
            let subject = format!("$SYS.REQ.SERVER.{server}.{service}");
            assert!(Question::parse(&subject).is_some(), "{subject}");
        }
    }
    for service in ACCOUNT_SERVICES {
        let subject = format!("$SYS.REQ.ACCOUNT.some.account.{service}");
        assert!(Question::parse(&subject).is_some(), "{subject}");
    }
    assert_eq!(Question::parse(OLD_PING), Some(Question::Statistics));
    assert_eq!(Question::parse(USER_INFO), Some(Question::User));
    assert_eq!(
        Question::parse("$SYS.REQ.ACCOUNT.PING.STATZ"),
        Some(Question::AccountFigures(None))
    );
    assert_eq!(
        Question::parse("$SYS.REQ.ACCOUNT.a.b.JSZ"),
        Some(Question::AccountJetStream("a.b"))
    );
    for other in ["$SYS.REQ.SERVER.PING.FOO", "$SYS.REQ.ACCOUNT.A.INFO", "a"] {
        assert_eq!(Question::parse(other), None, "{other}");
    }
}
