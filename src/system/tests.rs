//! Which subject asks what.

use super::question::{
    ACCOUNT_SERVICES, ALL_FIGURES, AccountService, OLD_PING, OWN_SERVICES, Question,
    SERVER_SERVICES, ServerService, USER_INFO,
};

#[test]
fn every_subject_that_is_listened_on_is_a_question() {
    for (name, service) in SERVER_SERVICES {
        for server in ["NAID", "PING"] {
            let subject = format!("$SYS.REQ.SERVER.{server}.{name}");
            assert_eq!(Question::parse(&subject), Some(Question::Server(service)));
        }
    }
    for (name, service) in ACCOUNT_SERVICES {
        let subject = format!("$SYS.REQ.ACCOUNT.some.account.{name}");
        let question = Question::Account("some.account", service);
        assert_eq!(Question::parse(&subject), Some(question));
    }
    let statistics = Question::Server(ServerService::Statistics);
    assert_eq!(Question::parse(OLD_PING), Some(statistics));
    assert_eq!(Question::parse(USER_INFO), Some(Question::User));
    assert_eq!(Question::parse(ALL_FIGURES), Some(Question::AllFigures));
    for other in ["$SYS.REQ.SERVER.PING.FOO", "$SYS.REQ.ACCOUNT.A.FOO", "a"] {
        assert_eq!(Question::parse(other), None, "{other}");
    }
}

#[test]
fn other_accounts_ask_about_themselves_only() {
    for (subject, service) in OWN_SERVICES {
        let question = Question::Account("A", service);
        assert_eq!(Question::parse_of(subject, "A"), Some(question));
    }
    assert_eq!(Question::parse_of(USER_INFO, "A"), Some(Question::User));
    for other in [
        "$SYS.REQ.ACCOUNT.B.CONNZ",
        "$SYS.REQ.SERVER.PING.VARZ",
        OLD_PING,
    ] {
        assert_eq!(Question::parse_of(other, "A"), None, "{other}");
    }
    let own = OWN_SERVICES.map(|(_, service)| service);
    assert!(!own.contains(&AccountService::Subscriptions));
}
