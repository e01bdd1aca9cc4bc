//! `/accountz`: which accounts there are, and what one of them is.

use super::answer::{BadParameter, Parameters, json};
use super::endpoints::Monitor;
use super::observed::json_time;
use super::subsz::IndexStatistics;
use crate::broker::Account;
use crate::config::options::AccountOptions;
use crate::jetstream::types::Time;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Question {
    /// The account to describe; all are named without one.
    pub account: String,
}

/// The answer.
#[derive(Serialize)]
pub struct Accountz {
    server_id: String,
    now: Time,
    #[serde(skip_serializing_if = "String::is_empty")]
    system_account: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    accounts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_detail: Option<AccountInfo>,
}

/// An account.
#[derive(Serialize)]
pub struct AccountInfo {
    account_name: String,
    update_time: Time,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_system: bool,
    expired: bool,
    complete: bool,
    jetstream_enabled: bool,
    leafnode_connections: usize,
    client_connections: usize,
    subscriptions: usize,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    mappings: BTreeMap<String, Vec<MappedTo>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exports: Vec<Export>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    imports: Vec<Import>,
    name_tag: String,
    sublist_stats: IndexStatistics,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    responses: BTreeMap<String, Import>,
}

/// Where a part of what is published to a subject goes. The weights are those up to here, all before included, as the reference shows them.
#[derive(Serialize)]
struct MappedTo {
    subject: String,
    weight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
}

/// What other accounts may ask here.
#[derive(Serialize)]
struct Export {
    subject: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    response_type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    approved_accounts: Vec<String>,
}

/// What is asked here and answered elsewhere.
#[derive(Serialize)]
struct Import {
    subject: String,
    account: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    to: String,
    local_subject: String,
    #[serde(rename = "type")]
    kind: &'static str,
    invalid: bool,
    share: bool,
    tracking: bool,
}

/// Answers over HTTP.
pub fn answer(monitor: &Monitor, parameters: &Parameters) -> Response {
    let question = Question {
        account: parameters.text("acc").to_owned(),
    };
    match accountz(monitor, &question) {
        Ok(answer) => json(&answer),
        Err(bad) => bad.into_response(),
    }
}

/// The accounts, or one of them.
pub fn accountz(monitor: &Monitor, question: &Question) -> Result<Accountz, BadParameter> {
    let facts = monitor.server.facts();
    let mut answer = Accountz {
        server_id: facts.server_id.clone(),
        now: json_time(SystemTime::now()),
        system_account: match facts.options.has_system_account() {
            true => facts.options.system_account().to_owned(),
            false => String::new(),
        },
        accounts: Vec::new(),
        account_detail: None,
    };
    if question.account.is_empty() {
        let accounts = monitor.server.accounts();
        let names = accounts.iter().map(|account| account.name().to_owned());
        answer.accounts = names.collect();
        answer.accounts.sort_unstable();
    } else {
        answer.account_detail = Some(account_info(monitor, &question.account)?);
    }
    Ok(answer)
}

/// An account.
pub fn account_info(monitor: &Monitor, name: &str) -> Result<AccountInfo, BadParameter> {
    let facts = monitor.server.facts();
    let account = monitor
        .server
        .account(name)
        .ok_or_else(|| BadParameter(format!("Account {name} does not exist")))?;
    let system = facts.options.system_account();
    let is_system = name == system;
    let jetstream_enabled = has_jetstream(monitor, name);
    let options = monitor.server.options();
    let configured = options.accounts.iter().find(|one| one.name == name);
    Ok(AccountInfo {
        account_name: name.to_owned(),
        update_time: json_time(facts.started),
        is_system,
        expired: false,
        complete: true,
        jetstream_enabled,
        leafnode_connections: 0,
        client_connections: account.connection_count(),
        subscriptions: account.subscription_count(),
        mappings: mappings(&account),
        exports: exports(configured, is_system),
        imports: imports(&account, configured, system, jetstream_enabled),
        name_tag: name.to_owned(),
        sublist_stats: IndexStatistics::of(&[Arc::clone(&account)]),
        responses: responses(&account),
    })
}

fn mappings(account: &Account) -> BTreeMap<String, Vec<MappedTo>> {
    let mappings = account.mappings();
    let shown = mappings.iter().map(|mapping| {
        let destinations = mapping.shown().map(|destination| MappedTo {
            subject: destination.subject,
            weight: destination.weight,
            cluster: destination.cluster,
        });
        (mapping.source().to_owned(), destinations.collect())
    });
    shown.collect()
}

fn has_jetstream(monitor: &Monitor, name: &str) -> bool {
    let streams = monitor.server.streams();
    streams.is_some_and(|streams| streams.account_names().iter().any(|known| known == name))
}

/// Answers that are shown of those that an account owes others.
const RESPONSES_MAX: usize = 1024;

/// What every account may ask the system account.
const SYSTEM_EXPORTS: [(&str, &str); 4] = [
    ("$SYS.REQ.ACCOUNT.*.CONNZ", "Streamed"),
    ("$SYS.REQ.ACCOUNT.*.STATZ", "Streamed"),
    ("$SYS.REQ.USER.*.INFO", "Singleton"),
    ("$JS.API.>", "Singleton"),
];

/// What the configuration lets others have, services first, and what the system account lets everybody ask.
fn exports(configured: Option<&AccountOptions>, is_system: bool) -> Vec<Export> {
    let system = SYSTEM_EXPORTS.iter().filter(|_| is_system);
    let mut exports: Vec<Export> = system
        .map(|(subject, response_type)| Export {
            subject: (*subject).to_owned(),
            kind: "service",
            response_type,
            approved_accounts: Vec::new(),
        })
        .collect();
    let Some(options) = configured else {
        return exports;
    };
    exports.extend(options.exports.services.iter().map(|export| Export {
        subject: export.subject.clone(),
        kind: "service",
        response_type: export.terms.response.name(),
        approved_accounts: export.approval.accounts.clone(),
    }));
    exports.extend(options.exports.streams.iter().map(|export| Export {
        subject: export.subject.clone(),
        kind: "stream",
        response_type: "",
        approved_accounts: export.approval.accounts.clone(),
    }));
    exports
}

/// The answers that other accounts wait for, by the subject that they are to be published to here.
fn responses(account: &Account) -> BTreeMap<String, Import> {
    let pending = account.pending_replies().into_iter();
    let shown = pending.map(|(subject, reply)| {
        let subject = String::from_utf8_lossy(&subject).into_owned();
        let import = Import {
            subject: String::from_utf8_lossy(reply.reply()).into_owned(),
            account: reply.account().to_owned(),
            to: subject.clone(),
            local_subject: subject.clone(),
            kind: "service",
            invalid: false,
            share: reply.import().options().share,
            tracking: false,
        };
        (subject, import)
    });
    shown.take(RESPONSES_MAX).collect()
}

/// What the configuration takes from other accounts: streams, then services.
fn configured_imports(options: &AccountOptions) -> impl Iterator<Item = Import> {
    let import = |kind, account: &String, subject: &String, local: &String| Import {
        subject: subject.clone(),
        account: account.clone(),
        to: String::new(),
        local_subject: local.clone(),
        kind,
        invalid: false,
        share: false,
        tracking: false,
    };
    let streams = options.imports.streams.iter();
    let streams = streams.map(move |it| import("stream", &it.account, &it.subject, &it.local));
    let services = options.imports.services.iter().map(move |it| Import {
        to: it.local.clone(),
        share: it.share,
        ..import("service", &it.account, &it.subject, &it.local)
    });
    streams.chain(services)
}

/// What the configuration takes from others, and the questions about itself that every account may ask.
fn imports(
    account: &Account,
    configured: Option<&AccountOptions>,
    system: &str,
    jetstream: bool,
) -> Vec<Import> {
    let mut imports: Vec<Import> = configured
        .map(configured_imports)
        .into_iter()
        .flatten()
        .collect();
    let name = account.name();
    let import = |subject: String, local_subject: &'static str, share: bool| Import {
        subject,
        account: system.to_owned(),
        to: local_subject.to_owned(),
        local_subject: local_subject.to_owned(),
        kind: "service",
        invalid: false,
        share,
        tracking: false,
    };
    let connections = || format!("$SYS.REQ.ACCOUNT.{name}.CONNZ");
    let user = import(
        format!("$SYS.REQ.USER.{name}.INFO"),
        "$SYS.REQ.USER.INFO",
        true,
    );
    // What others import is asked there under its own name.
    if name == system {
        imports.push(user);
        return imports;
    }
    imports.extend([
        import(connections(), "$SYS.REQ.ACCOUNT.PING.CONNZ", false),
        import(connections(), "$SYS.REQ.SERVER.PING.CONNZ", false),
        import(
            format!("$SYS.REQ.ACCOUNT.{name}.STATZ"),
            "$SYS.REQ.ACCOUNT.PING.STATZ",
            false,
        ),
        user,
    ]);
    if jetstream {
        imports.push(import("$JS.API.>".into(), "$JS.API.>", true));
    }
    imports
}
