//! The `accounts` block: spaces of subjects of their own, who is in each, and what they may use.

use super::super::value::{Map, Value};
use super::authorization::permissions;
use super::mappings;
use super::report::{Field, Report, in_file_order};
use super::sharing::{self, Exports, Imported, Imports, Shared};
use super::users::{self, NkeyUser, User, Users};
use super::{Options, SYSTEM_ACCOUNT_DEFAULT};
use crate::subject::transform::Mappings;
use crate::subject::{is_valid_literal, is_valid_subject};
use std::collections::{BTreeMap, HashSet};

/// The most replicas that a stream has.
const REPLICAS_MAX: u8 = 5;

/// The account of everyone who is in no other; the file may not name it.
const RESERVED: &str = "$G";

/// What the file says about an account.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccountOptions {
    /// Name.
    pub name: String,
    /// Users with passwords.
    pub users: Vec<User>,
    /// Users with keys.
    pub nkeys: Vec<NkeyUser>,
    /// What its streams may use; it may have none without this.
    pub jetstream: Option<AccountJetStream>,
    /// What those with so many replicas may use, where that is said instead of what all may use together. The reference's server has this in accounts' tokens only.
    pub jetstream_tiers: BTreeMap<u8, AccountJetStream>,
    /// What its clients publish and goes elsewhere.
    pub mappings: Mappings,
    /// Where reports on messages with a W3C trace context go.
    pub trace: Option<TraceOptions>,
    /// What its connections may use.
    pub limits: AccountLimitOptions,
    /// What it offers other accounts.
    pub exports: Exports,
    /// What it takes from other accounts.
    pub imports: Imports,
}

impl AccountOptions {
    /// Whether anybody can log in to it.
    pub fn has_users(&self) -> bool {
        !self.users.is_empty() || !self.nkeys.is_empty()
    }

    /// The names of its users and the keys of those that have keys.
    pub(super) fn user_names(&self) -> impl Iterator<Item = &String> {
        let nkeys = self.nkeys.iter().map(|user| &user.nkey);
        self.users.iter().map(|user| &user.name).chain(nkeys)
    }
}

/// Where reports on messages with a W3C trace context go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceOptions {
    /// The subject.
    pub destination: String,
    /// Of how many in a hundred messages.
    pub percent: u8,
}

/// What the connections of an account may use; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountLimitOptions {
    /// Connections at one time; 0 admits nobody.
    pub connections_max: Option<u64>,
    /// Subscriptions of one connection; 0 is none at all.
    pub subscriptions_max: Option<u64>,
    /// Bytes of headers and payload of one message.
    pub payload_bytes_max: Option<usize>,
}

/// What the streams of an account may use; -1 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountJetStream {
    /// Bytes in memory.
    pub memory_bytes_max: i64,
    /// Bytes on disk.
    pub file_bytes_max: i64,
    /// Streams.
    pub streams_max: i64,
    /// Consumers of one stream.
    pub consumers_max: i64,
    /// Messages of one consumer that may wait for an ack.
    pub ack_pending_max: i64,
    /// Bytes of one stream in memory.
    pub memory_stream_bytes_max: i64,
    /// Bytes of one stream on disk.
    pub file_stream_bytes_max: i64,
    /// Every stream must say how many bytes it may hold.
    pub max_bytes_required: bool,
}

impl Default for AccountJetStream {
    fn default() -> Self {
        AccountJetStream {
            memory_bytes_max: -1,
            file_bytes_max: -1,
            streams_max: -1,
            consumers_max: -1,
            ack_pending_max: -1,
            memory_stream_bytes_max: -1,
            file_stream_bytes_max: -1,
            max_bytes_required: false,
        }
    }
}

/// Whether accounts and users go together.
pub(super) fn check(options: &Options) -> Result<(), String> {
    let several = options.accounts.iter().any(AccountOptions::has_users);
    let authorization = &options.authorization;
    if several && (authorization.user.is_some() || authorization.password.is_some()) {
        return Err("Can not have a single user/pass and accounts".into());
    }
    if several && authorization.token.is_some() {
        return Err("Can not have a token and accounts".into());
    }
    let mut known = HashSet::new();
    let own = authorization.users.iter().map(|user| &user.name);
    let own = own.chain(authorization.nkeys.iter().map(|user| &user.nkey));
    for name in own.chain(options.accounts.iter().flat_map(AccountOptions::user_names)) {
        if !known.insert(name.as_str()) {
            return Err(users::duplicate_user(name));
        }
    }
    if let Some(name) = options.no_auth_user()
        && !known.contains(name)
    {
        return Err(format!(
            "no_auth_user: {name:?} not present as user or nkey in authorization block or account configuration"
        ));
    }
    let system = options.system_account();
    let configured = options
        .accounts
        .iter()
        .find(|account| account.name == system);
    if configured.is_none() && system != SYSTEM_ACCOUNT_DEFAULT {
        return Err(format!(
            "error resolving system account: account {system:?} is missing"
        ));
    }
    if configured.is_some_and(|account| account.jetstream.is_some()) {
        return Err("jetstream can not be enabled on the system account".into());
    }
    Ok(())
}

/// Reads the block: accounts with what belongs to them, or a list of names.
pub(super) fn read(field: &Field<'_>, report: &mut Report) -> Vec<AccountOptions> {
    match field.value() {
        Value::Map(map) => from_map(map, report),
        Value::Array(_) => from_names(field, report),
        _ => {
            field.wrong_type(report, "a map of accounts");
            Vec::new()
        }
    }
}

fn from_map(map: &Map, report: &mut Report) -> Vec<AccountOptions> {
    let mut accounts = Vec::new();
    let mut known = HashSet::new();
    let mut between = Between::default();
    for entry in in_file_order(map) {
        if entry.node.used_as_variable || is_reserved(entry.name, &entry, report) {
            continue;
        }
        let Value::Map(members) = entry.value() else {
            entry.invalid(report, "Expected map entries for accounts");
            continue;
        };
        let account = account(entry.name, members, accounts.len(), &mut between, report);
        for user in &account.users {
            if !known.insert(user.name.clone()) {
                entry.invalid(report, users::duplicate_user(&user.name));
            }
        }
        for user in &account.nkeys {
            if !known.insert(user.nkey.clone()) {
                entry.invalid(report, users::duplicate_nkey(&user.nkey));
            }
        }
        accounts.push(account);
    }
    // An import of an account that could not be read would be one more error, and tell nothing.
    if report.is_clean() {
        sharing::settle(&mut accounts, between.exports, between.imports, report);
    }
    accounts
}

/// What is between accounts, and which account said it: looked at when all of them are known.
#[derive(Default)]
struct Between<'a> {
    exports: Vec<(usize, Shared<'a>)>,
    imports: Vec<(usize, Imported<'a>)>,
}

fn from_names(field: &Field<'_>, report: &mut Report) -> Vec<AccountOptions> {
    let mut accounts: Vec<AccountOptions> = Vec::new();
    for name in field.strings(report).unwrap_or_default() {
        if is_reserved(&name, field, report) {
            continue;
        }
        if accounts.iter().any(|account| account.name == name) {
            field.invalid(report, format!("Duplicate Account Entry: {name}"));
            continue;
        }
        accounts.push(AccountOptions {
            name,
            ..AccountOptions::default()
        });
    }
    accounts
}

/// Whether the name cannot be given to an account.
fn is_reserved(name: &str, field: &Field<'_>, report: &mut Report) -> bool {
    if name == RESERVED {
        field.invalid(report, format!("{name:?} is a Reserved Account"));
        return true;
    }
    // Other servers read it as a word of a line, and events name it in their subjects.
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || "*>".contains(c)) {
        let reason = format!("{name:?} cannot be the name of an account");
        field.invalid(report, reason);
        return true;
    }
    false
}

fn account<'a>(
    name: &str,
    members: &'a Map,
    number: usize,
    between: &mut Between<'a>,
    report: &mut Report,
) -> AccountOptions {
    let mut account = AccountOptions {
        name: name.to_owned(),
        ..AccountOptions::default()
    };
    let mut found = Users::default();
    let mut defaults = None;
    for field in in_file_order(members) {
        match field.key().as_str() {
            "nkey" => {
                let nkey = field.string(report);
                if nkey.is_some_and(|nkey| !users::is_public_key(&nkey, 'A')) {
                    field.invalid(report, "Not a valid public nkey for an account");
                }
            }
            "users" => found = users::read(&field, report),
            "default_permissions" => defaults = permissions(&field, report),
            "jetstream" => {
                (account.jetstream, account.jetstream_tiers) = jetstream(&field, report);
            }
            "limits" => account.limits = limits(&field, report),
            "exports" => {
                let exports = sharing::exports(&field, report).into_iter();
                between
                    .exports
                    .extend(exports.map(|export| (number, export)));
            }
            "imports" => {
                let imports = sharing::imports(&field, report).into_iter();
                between
                    .imports
                    .extend(imports.map(|import| (number, import)));
            }
            "mappings" | "maps" => account.mappings = mappings::read(&field, report),
            "msg_trace" | "trace_dest" => {
                account.trace = trace(&field, report);
            }
            _ => field.unknown(report),
        }
    }
    found.apply_default(&defaults);
    account.users = found.users;
    account.nkeys = found.nkeys;
    account
}

fn limits(field: &Field<'_>, report: &mut Report) -> AccountLimitOptions {
    let mut limits = AccountLimitOptions::default();
    let Some(map) = field.map(report) else {
        return limits;
    };
    for member in in_file_order(map) {
        let limit = |report: &mut Report| {
            let limit = member.within::<i64>(report, -1, i64::from(i32::MAX))?;
            u64::try_from(limit).ok()
        };
        match member.key().as_str() {
            "max_connections" | "max_conn" => limits.connections_max = limit(report),
            "max_subscriptions" | "max_subs" => limits.subscriptions_max = limit(report),
            "max_payload" | "max_pay" => {
                limits.payload_bytes_max = limit(report).and_then(|max| usize::try_from(max).ok());
            }
            "max_leafnodes" | "max_leafs" => {
                member.not_supported(report, "leaf nodes are not built");
            }
            _ => member.unknown(report),
        }
    }
    limits
}

/// Reads a subject, or a subject and how many in a hundred messages are reported on.
fn trace(field: &Field<'_>, report: &mut Report) -> Option<TraceOptions> {
    let options = |destination| TraceOptions {
        destination,
        percent: 100,
    };
    let map = match field.value() {
        Value::String(_) => return trace_destination(field, report).map(options),
        Value::Map(map) => map,
        _ => {
            field.wrong_type(report, "a subject or a map");
            return None;
        }
    };
    let mut percent = 100;
    let mut destination = None;
    for member in in_file_order(map) {
        match member.key().as_str() {
            "dest" => destination = trace_destination(&member, report),
            "sampling" => percent = sampling(&member, report).unwrap_or(percent),
            _ => member.unknown(report),
        }
    }
    let destination = destination?;
    Some(TraceOptions {
        percent,
        ..options(destination)
    })
}

fn trace_destination(field: &Field<'_>, report: &mut Report) -> Option<String> {
    let destination = field.string(report)?;
    if is_valid_subject(&destination) && is_valid_literal(&destination) {
        return Some(destination);
    }
    let reason = format!("Trace destination {destination:?} is not valid");
    field.invalid(report, reason);
    None
}

/// A number from 1 to 100, perhaps with `%` behind it.
fn sampling(field: &Field<'_>, report: &mut Report) -> Option<u8> {
    let number = match field.value() {
        Value::String(text) => {
            let number = text.strip_suffix('%').unwrap_or(text).parse::<i64>();
            if number.is_err() {
                let reason = format!("Invalid trace destination sampling value {text:?}");
                field.invalid(report, reason);
            }
            number.ok()?
        }
        _ => field.integer(report)?,
    };
    let percent = u8::try_from(number).ok();
    let percent = percent.filter(|percent| (1..=100).contains(percent));
    if percent.is_none() {
        let reason =
            format!("Trace destination sampling value {number} is invalid, needs to be [1..100]");
        field.invalid(report, reason);
    }
    percent
}

type Tiers = BTreeMap<u8, AccountJetStream>;

/// Reads `jetstream: enabled`, `jetstream: true` or the block of an account.
fn jetstream(field: &Field<'_>, report: &mut Report) -> (Option<AccountJetStream>, Tiers) {
    let mut tiers = Tiers::new();
    let limits = match field.value() {
        Value::Bool(enabled) => enabled.then(AccountJetStream::default),
        Value::String(word) => match word.to_ascii_lowercase().as_str() {
            "enabled" | "enable" => Some(AccountJetStream::default()),
            "disabled" | "disable" => None,
            _ => {
                let reason =
                    format!("Expected 'enabled' or 'disabled' for string value, got '{word}'");
                field.invalid(report, reason);
                None
            }
        },
        Value::Map(map) => {
            let mut limits = AccountJetStream::default();
            for member in in_file_order(map) {
                match member.key().as_str() {
                    "tiers" => tiers = read_tiers(&member, report),
                    _ => jetstream_limit(&mut limits, &member, report),
                }
            }
            if !tiers.is_empty() && limits != AccountJetStream::default() {
                let reason = "tiers and limits of all streams together exclude each other";
                field.invalid(report, reason);
            }
            Some(limits)
        }
        _ => {
            field.wrong_type(report, "a map, a boolean or 'enabled'");
            None
        }
    };
    (limits, tiers)
}

/// Reads `tiers: { R1: {...}, R3: {...} }`.
fn read_tiers(field: &Field<'_>, report: &mut Report) -> Tiers {
    let mut tiers = Tiers::new();
    let members = field.map(report).map(in_file_order).unwrap_or_default();
    for member in members {
        let replicas = member.key().strip_prefix('r').and_then(|n| n.parse().ok());
        let Some(replicas) = replicas.filter(|replicas| (1..=REPLICAS_MAX).contains(replicas))
        else {
            let reason = format!(
                "a tier is called R1 to R{REPLICAS_MAX}, not {:?}",
                member.name
            );
            member.invalid(report, reason);
            continue;
        };
        let mut limits = AccountJetStream::default();
        let map = member.map(report).map(in_file_order).unwrap_or_default();
        for limit in map {
            jetstream_limit(&mut limits, &limit, report);
        }
        tiers.insert(replicas, limits);
    }
    tiers
}

fn jetstream_limit(limits: &mut AccountJetStream, field: &Field<'_>, report: &mut Report) {
    let limit = match field.key().as_str() {
        "max_memory" | "max_mem" | "mem" | "memory" => &mut limits.memory_bytes_max,
        "max_store" | "max_file" | "max_disk" | "store" | "disk" => &mut limits.file_bytes_max,
        "max_streams" | "streams" => &mut limits.streams_max,
        "max_consumers" | "consumers" => &mut limits.consumers_max,
        "max_ack_pending" => &mut limits.ack_pending_max,
        "mem_max_stream_bytes" | "memory_max_stream_bytes" => &mut limits.memory_stream_bytes_max,
        "disk_max_stream_bytes" | "store_max_stream_bytes" => &mut limits.file_stream_bytes_max,
        "max_bytes_required" | "max_stream_bytes" | "max_bytes" => {
            limits.max_bytes_required = field.bool(report).unwrap_or_default();
            return;
        }
        "cluster_traffic" => return cluster_traffic(field, report),
        _ => return field.unknown(report),
    };
    if let Some(number) = field.within(report, -1, i64::MAX) {
        *limit = number;
    }
}

/// Replicas talk to each other in the system account; nothing else is built.
fn cluster_traffic(field: &Field<'_>, report: &mut Report) {
    match field.string(report).as_deref() {
        None | Some("system" | "") => {}
        Some("owner") => {
            field.not_supported(report, "replicas that talk in the account they belong to");
        }
        Some(other) => {
            let reason = format!("Expected 'system' or 'owner' string value, got '{other}'");
            field.invalid(report, reason);
        }
    }
}
