//! Users: known by a password or by a key, in the `authorization` block or in an account.

use super::super::value::Value;
use super::authorization::{Permissions, is_bcrypt, permissions};
use super::report::{Field, Report, in_file_order};
use std::collections::HashSet;
use std::fmt;

/// How a client can connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionType {
    /// The port for clients.
    Standard,
    /// WebSocket.
    WebSocket,
    /// As a leaf node.
    LeafNode,
    /// As a leaf node over WebSocket.
    LeafNodeWebSocket,
    /// MQTT.
    Mqtt,
    /// MQTT over WebSocket.
    MqttWebSocket,
    /// Within the server's own process.
    InProcess,
}

impl ConnectionType {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "STANDARD" => Self::Standard,
            "WEBSOCKET" => Self::WebSocket,
            "LEAFNODE" => Self::LeafNode,
            "LEAFNODE_WS" => Self::LeafNodeWebSocket,
            "MQTT" => Self::Mqtt,
            "MQTT_WS" => Self::MqttWebSocket,
            "IN_PROCESS" => Self::InProcess,
            _ => return None,
        })
    }
}

/// A user with a password. Shown without it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Password, plain or bcrypt; empty is no password.
    pub password: String,
    /// What the user may do; everything without it.
    pub permissions: Option<Permissions>,
    /// How it may connect; in every way without it.
    pub connection_types: Option<Vec<ConnectionType>>,
}

impl User {
    /// Whether somebody who reads the configuration could log in as this user.
    pub fn has_plain_password(&self) -> bool {
        !self.password.is_empty() && !is_bcrypt(&self.password)
    }
}

impl fmt::Debug for User {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("User")
            .field("name", &self.name)
            .field("permissions", &self.permissions)
            .finish_non_exhaustive()
    }
}

/// A user that signs what the server asks it to sign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NkeyUser {
    /// The public key, `U…`; it is the user's name as well.
    pub nkey: String,
    /// What the user may do; everything without it.
    pub permissions: Option<Permissions>,
    /// How it may connect; in every way without it.
    pub connection_types: Option<Vec<ConnectionType>>,
}

/// The users of one list.
#[derive(Debug, Default)]
pub(super) struct Users {
    pub(super) users: Vec<User>,
    pub(super) nkeys: Vec<NkeyUser>,
}

impl Users {
    /// Gives these permissions to those who have none of their own.
    pub(super) fn apply_default(&mut self, defaults: &Option<Permissions>) {
        let users = self.users.iter_mut().map(|user| &mut user.permissions);
        let nkeys = self.nkeys.iter_mut().map(|user| &mut user.permissions);
        for permissions in users.chain(nkeys).filter(|own| own.is_none()) {
            permissions.clone_from(defaults);
        }
    }
}

/// Reads a list of users.
pub(super) fn read(field: &Field<'_>, report: &mut Report) -> Users {
    let mut found = Users::default();
    let Value::Array(items) = field.value() else {
        field.wrong_type(report, "a list of users");
        return found;
    };
    let mut names = HashSet::new();
    for item in items {
        let entry = Field {
            name: field.name,
            node: item,
        };
        match one(&entry, report) {
            Some(Entry::User(user)) if names.insert(user.name.clone()) => found.users.push(user),
            Some(Entry::Nkey(user)) if names.insert(user.nkey.clone()) => found.nkeys.push(user),
            Some(Entry::User(user)) => entry.invalid(report, duplicate_user(&user.name)),
            Some(Entry::Nkey(user)) => entry.invalid(report, duplicate_nkey(&user.nkey)),
            None => {}
        }
    }
    found
}

pub(super) fn duplicate_user(name: &str) -> String {
    format!("Duplicate user {name:?} detected")
}

pub(super) fn duplicate_nkey(nkey: &str) -> String {
    format!("Duplicate nkey {nkey:?} detected")
}

enum Entry {
    User(User),
    Nkey(NkeyUser),
}

fn one(entry: &Field<'_>, report: &mut Report) -> Option<Entry> {
    let Value::Map(map) = entry.value() else {
        entry.wrong_type(report, "a list of maps");
        return None;
    };
    let mut user = User::default();
    let mut nkey = String::new();
    for member in in_file_order(map) {
        match member.key().as_str() {
            "user" | "username" => user.name = member.string(report).unwrap_or_default(),
            "pass" | "password" => user.password = member.string(report).unwrap_or_default(),
            "nkey" => nkey = member.string(report).unwrap_or_default(),
            "permission" | "permissions" | "authorization" => {
                user.permissions = permissions(&member, report);
            }
            "allowed_connection_types" | "connection_types" | "clients" => {
                user.connection_types = connection_types(&member, report);
            }
            "proxy_required" => {
                if member.bool(report) == Some(true) {
                    member.not_supported(report, "trusted proxies are not built");
                }
            }
            "account" => {
                member.not_supported(
                    report,
                    "a user is put into an account in the accounts block",
                );
            }
            _ => member.unknown(report),
        }
    }
    if nkey.is_empty() {
        if user.name.is_empty() {
            entry.invalid(report, "User entry requires a user");
            return None;
        }
        return Some(Entry::User(user));
    }
    if !is_public_key(&nkey, 'U') {
        entry.invalid(report, "Not a valid public nkey for a user");
        return None;
    }
    if !user.name.is_empty() || !user.password.is_empty() {
        entry.invalid(report, "Nkey users do not take usernames or passwords");
        return None;
    }
    Some(Entry::Nkey(NkeyUser {
        nkey,
        permissions: user.permissions,
        connection_types: user.connection_types,
    }))
}

/// Whether this is the public half of a key of this kind.
pub(super) fn is_public_key(text: &str, kind: char) -> bool {
    text.starts_with(kind) && nkeys::KeyPair::from_public_key(text).is_ok()
}

/// The ways in which a user may connect; `None` when nothing is listed, which restricts nothing.
fn connection_types(field: &Field<'_>, report: &mut Report) -> Option<Vec<ConnectionType>> {
    let mut types = Vec::new();
    for name in field.strings(report)? {
        match ConnectionType::named(&name.to_ascii_uppercase()) {
            Some(named) => types.push(named),
            None => field.invalid(report, format!("invalid connection types [{name:?}]")),
        }
    }
    (!types.is_empty()).then_some(types)
}
