//! What the reference can be told and this server cannot yet: refused by name, never ignored.

use super::super::flags::Flags;
use super::super::value::Value;
use super::ConfigError;
use super::report::{Field, Report};

/// What one of the reference's top-level keys asks for.
enum Ask {
    /// Something that is not built.
    Feature(&'static str),
    /// Something that is not built, unless the value says no.
    Switch(&'static str),
    /// Something that is not built, unless the value is what happens anyway.
    Word(&'static str, &'static [&'static str]),
}

/// Refuses a key of the reference's top level. False when the reference has no such key either.
pub(super) fn refuse_top(key: &str, field: &Field<'_>, report: &mut Report) -> bool {
    let Some(ask) = ask(key) else {
        return false;
    };
    let (what, harmless) = match ask {
        Ask::Feature(what) => (what, false),
        Ask::Switch(what) => (what, *field.value() == Value::Bool(false)),
        Ask::Word(what, words) => {
            let said = |word: &&str| *field.value() == Value::String((*word).to_owned());
            (what, words.iter().any(said))
        }
    };
    if !harmless {
        field.not_supported(report, what);
    }
    true
}

fn ask(key: &str) -> Option<Ask> {
    use Ask::{Feature, Switch, Word};
    Some(match key {
        "no_system_account" | "no_system" | "no_sys_acc" => {
            Switch("running without a system account is not built")
        }
        "operator"
        | "operators"
        | "roots"
        | "root"
        | "root_operators"
        | "root_operator"
        | "trusted"
        | "trusted_keys"
        | "resolver"
        | "account_resolver"
        | "accounts_resolver"
        | "resolver_tls"
        | "resolver_preload"
        | "resolver_pinned_accounts"
        | "default_sentinel" => Feature("operator mode with JWTs is not built"),
        "default_js_domain" => Feature("JetStream domains are not built"),
        "proxies" => Feature("trusted proxies are not built"),
        "https" | "https_port" => Feature("monitoring over HTTPS is not built"),
        "ocsp" | "ocsp_cache" => Switch("OCSP is not built"),
        "gateway" => Feature("gateways are not built"),
        "leaf" | "leafnodes" => Feature("leaf nodes are not built"),
        "mqtt" => Feature("MQTT is not built"),
        "connect_error_reports" | "reconnect_error_reports" => {
            Feature("how often a failed dial is reported cannot be chosen")
        }
        "prof_port" | "prof_block_rate" => Feature("profiling over HTTP is not built"),
        "write_timeout" => Word("only the policy 'close' is built", &["default", "close"]),
        "disable_sublist_cache" | "no_sublist_cache" => {
            Switch("the cache of subject matches cannot be switched off")
        }
        "server_metadata" => Feature("metadata of the server is not built"),
        "feature_flags" => Feature("the features behind flags are not built"),
        _ => return None,
    })
}

/// Refuses flags that ask for what is not built.
pub(super) fn refuse_flags(flags: &Flags) -> Result<(), ConfigError> {
    let asked: [(&'static str, bool, &'static str); 2] = [
        (
            "https_port",
            flags.https_port.is_some_and(|port| port != 0),
            "monitoring over HTTPS is not built",
        ),
        (
            "profile",
            flags.profile.is_some_and(|port| port != 0),
            "profiling over HTTP is not built",
        ),
    ];
    match asked.into_iter().find(|(_, asked, _)| *asked) {
        Some((flag, _, what)) => Err(ConfigError::FlagNotSupported { flag, what }),
        None => Ok(()),
    }
}
