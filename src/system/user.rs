//! `$SYS.REQ.USER.INFO`: what the server thinks of the client that asks.

use serde::Serialize;

use super::envelope::Refusal;
use crate::broker::Inbound;
use crate::config::Options;
use crate::config::options::{Permissions, ResponsePermission, SubjectPermission};

/// Who asks.
#[derive(Serialize)]
pub(super) struct UserInfo {
    user: String,
    account: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    account_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions: Option<ShownPermissions>,
}

#[derive(Serialize)]
struct ShownPermissions {
    publish: ShownSubjects,
    subscribe: ShownSubjects,
    #[serde(skip_serializing_if = "Option::is_none")]
    responses: Option<ShownResponses>,
}

#[derive(Serialize)]
struct ShownSubjects {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
}

/// -1 is no limit.
#[derive(Serialize)]
struct ShownResponses {
    max: i64,
    /// Nanoseconds.
    ttl: i64,
}

/// What the client that asks is known as, and what it may do.
pub(super) fn info(options: &Options, request: &Inbound) -> Result<UserInfo, Refusal> {
    let Some(client) = &request.client else {
        return Err(Refusal::bad_request("only a client has a user"));
    };
    Ok(UserInfo {
        user: client.user.clone(),
        account: client.account.clone(),
        account_name: client.account.clone(),
        permissions: permissions_of(options, &client.user).map(shown),
    })
}

/// A name is in one account only.
fn permissions_of<'a>(options: &'a Options, name: &str) -> Option<&'a Permissions> {
    let accounts = options.accounts.iter();
    let users = accounts.clone().flat_map(|account| &account.users);
    let nkeys = accounts.flat_map(|account| &account.nkeys);
    let user = options
        .authorization
        .users
        .iter()
        .chain(users)
        .find(|user| user.name == name);
    let nkey = options
        .authorization
        .nkeys
        .iter()
        .chain(nkeys)
        .find(|user| user.nkey == name);
    let of_user = user.and_then(|user| user.permissions.as_ref());
    of_user.or_else(|| nkey.and_then(|user| user.permissions.as_ref()))
}

fn shown(permissions: &Permissions) -> ShownPermissions {
    ShownPermissions {
        publish: subjects(permissions.publish.as_ref()),
        subscribe: subjects(permissions.subscribe.as_ref()),
        responses: permissions.responses.as_ref().map(responses),
    }
}

fn subjects(permission: Option<&SubjectPermission>) -> ShownSubjects {
    ShownSubjects {
        allow: permission
            .and_then(|permission| permission.allow.clone())
            .unwrap_or_default(),
        deny: permission
            .map(|permission| permission.deny.clone())
            .unwrap_or_default(),
    }
}

fn responses(permission: &ResponsePermission) -> ShownResponses {
    let ttl = permission.expires.map(|time| time.as_nanos());
    ShownResponses {
        max: permission
            .replies_max
            .map_or(-1, |max| i64::try_from(max).unwrap_or(i64::MAX)),
        ttl: ttl.map_or(-1, |ttl| i64::try_from(ttl).unwrap_or(i64::MAX)),
    }
}
