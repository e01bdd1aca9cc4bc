//! What the reference can be told and this server cannot yet: refused by name, never ignored.

use super::super::value::Value;
use super::report::{Field, Report};

/// What one of the reference's top-level keys asks for.
enum Ask {
    /// Something that is not built.
    Feature(&'static str),
    /// Something that is not built, unless the value says no.
    Switch(&'static str),
    /// Something that is not built, unless the value is this number.
    Number(&'static str, i64),
}

/// Refuses a key of the reference's top level. False when the reference has no such key either.
pub(super) fn refuse_top(key: &str, field: &Field<'_>, report: &mut Report) -> bool {
    let Some(ask) = ask(key) else {
        return false;
    };
    let (what, harmless) = match ask {
        Ask::Feature(what) => (what, false),
        Ask::Switch(what) => (what, *field.value() == Value::Bool(false)),
        Ask::Number(what, number) => (what, *field.value() == Value::Integer(number)),
    };
    if !harmless {
        field.not_supported(report, what);
    }
    true
}

fn ask(key: &str) -> Option<Ask> {
    use Ask::{Feature, Number, Switch};
    Some(match key {
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
        "proxies" => Feature("trusted proxies are not built"),
        "gateway" => Feature("gateways are not built"),
        "leaf" | "leafnodes" => Feature("leaf nodes are not built"),
        "mqtt" => Feature("MQTT is not built"),
        // It counts how long goroutines wait for each other; nothing here is one.
        "prof_block_rate" => Number("profiles of what blocks are not built", 0),
        "disable_sublist_cache" | "no_sublist_cache" => {
            Switch("the cache of subject matches cannot be switched off")
        }
        _ => return None,
    })
}
