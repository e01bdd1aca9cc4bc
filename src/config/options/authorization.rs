//! The `authorization` block: who may connect, and what each may do.

use super::super::duration::parse_nanoseconds;
use super::super::value::{Node, Value};
use super::report::{Field, OptionProblem, Report, in_file_order};
use super::users::{self, NkeyUser, User, Users};
use std::fmt;
use std::time::Duration;

/// How long a client may take to say who it is.
pub const AUTHORIZATION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
/// A longer timeout is most likely an unquoted duration.
const AUTHORIZATION_TIMEOUT_ADVISED_MAX: Duration = Duration::from_secs(60);
/// Replies that `allow_responses: true` admits.
const RESPONSES_DEFAULT: i64 = 1;
/// How long `allow_responses: true` admits them.
const RESPONSE_TIME_DEFAULT: Duration = Duration::from_secs(120);

/// Who may connect. Shown without its secrets.
#[derive(Clone, PartialEq)]
pub struct Authorization {
    /// The one user, when there is only one.
    pub user: Option<String>,
    /// Its password, plain or bcrypt.
    pub password: Option<String>,
    /// A token instead of a user, plain or bcrypt.
    pub token: Option<String>,
    /// How long a client may take to say who it is.
    pub timeout: Duration,
    /// Several users with passwords.
    pub users: Vec<User>,
    /// Users with keys.
    pub nkeys: Vec<NkeyUser>,
    /// The user that a client without credentials is taken for.
    pub no_auth_user: Option<String>,
}

impl Default for Authorization {
    fn default() -> Self {
        Authorization {
            user: None,
            password: None,
            token: None,
            timeout: AUTHORIZATION_TIMEOUT_DEFAULT,
            users: Vec::new(),
            nkeys: Vec::new(),
            no_auth_user: None,
        }
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Authorization")
            .field("user", &self.user)
            .field("token", &self.token.is_some())
            .field("timeout", &self.timeout)
            .field("users", &self.users)
            .field("nkeys", &self.nkeys)
            .field("no_auth_user", &self.no_auth_user)
            .finish_non_exhaustive()
    }
}

impl Authorization {
    /// Whether a client must say who it is.
    pub fn required(&self) -> bool {
        self.user.is_some()
            || self.password.is_some()
            || self.token.is_some()
            || !self.users.is_empty()
            || !self.nkeys.is_empty()
    }

    /// Whether somebody who reads the configuration could log in.
    pub fn holds_plain_passwords(&self) -> bool {
        let users = self.users.iter().map(|user| &user.password);
        let single = self.password.iter().chain(&self.token);
        users
            .chain(single)
            .any(|secret| !secret.is_empty() && !is_bcrypt(secret))
    }

    /// Whether the parts go together.
    pub(super) fn check(&self) -> Result<(), String> {
        let single = self.user.is_some() || self.password.is_some();
        if single && self.token.is_some() {
            return Err("Cannot have a user/pass and token".into());
        }
        let several = !self.users.is_empty() || !self.nkeys.is_empty();
        if single && several {
            return Err("Can not have a single user/pass and a users array".into());
        }
        if self.token.is_some() && several {
            return Err("Can not have a token and a users array".into());
        }
        Ok(())
    }
}

/// Whether a password or token is a bcrypt hash.
pub fn is_bcrypt(secret: &str) -> bool {
    ["$2a$", "$2b$", "$2x$", "$2y$"]
        .iter()
        .any(|prefix| secret.starts_with(prefix))
}

/// What a user may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Where it may publish; anywhere without it.
    pub publish: Option<SubjectPermission>,
    /// What it may subscribe to, `subject` or `subject queue`; anything without it.
    pub subscribe: Option<SubjectPermission>,
    /// Replies it may publish to the requests it received, wherever they go.
    pub responses: Option<ResponsePermission>,
}

/// Subjects allowed and denied; a denial wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectPermission {
    /// Only these; anything without it, nothing when it is empty.
    pub allow: Option<Vec<String>>,
    /// Not these.
    pub deny: Vec<String>,
}

/// How requests may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponsePermission {
    /// Replies to one request; `None` is no limit.
    pub replies_max: Option<u64>,
    /// How long after the request; `None` is no limit.
    pub expires: Option<Duration>,
}

/// Reads the block.
pub(super) fn read(target: &mut Authorization, field: &Field<'_>, report: &mut Report) {
    let Some(map) = field.map(report) else {
        return;
    };
    let mut defaults = None;
    let mut users_named = false;
    let mut found = Users::default();
    for member in in_file_order(map) {
        match member.key().as_str() {
            "user" | "username" => target.user = text(&member, report),
            "pass" | "password" => target.password = text(&member, report),
            "token" => target.token = text(&member, report),
            "timeout" => {
                if let Some(timeout) = timeout(&member, report) {
                    target.timeout = timeout;
                }
            }
            "users" => {
                users_named = true;
                found = users::read(&member, report);
            }
            "default_permission" | "default_permissions" | "permissions" => {
                defaults = permissions(&member, report);
            }
            "auth_callout" | "auth_hook" => {
                member.not_supported(report, "authorization by callout is not built");
            }
            "proxy_required" => {
                if member.bool(report) == Some(true) {
                    member.not_supported(report, "trusted proxies are not built");
                }
            }
            _ => member.unknown(report),
        }
    }
    if users_named && target.user.is_some() {
        field.invalid(report, "Can not have a single user/pass and a users array");
    }
    if users_named && target.token.is_some() {
        field.invalid(report, "Can not have a token and a users array");
    }
    if defaults.is_some() && !users_named {
        field.invalid(
            report,
            "default permissions apply to a users array, and there is none",
        );
    }
    found.apply_default(&defaults);
    target.users = found.users;
    target.nkeys = found.nkeys;
}

fn text(field: &Field<'_>, report: &mut Report) -> Option<String> {
    field.string(report).filter(|text| !text.is_empty())
}

/// Seconds as a number, or a duration.
pub(super) fn timeout(field: &Field<'_>, report: &mut Report) -> Option<Duration> {
    let seconds = match field.value() {
        Value::Integer(seconds) => *seconds as f64,
        Value::Float(seconds) => *seconds,
        Value::String(text) => match parse_nanoseconds(text) {
            Ok(nanoseconds) => nanoseconds as f64 / 1e9,
            Err(error) => {
                let reason = format!("error parsing authorization config, 'timeout' {error}");
                field.invalid(report, reason);
                return None;
            }
        },
        _ => {
            field.wrong_type(report, "seconds or a duration");
            return None;
        }
    };
    let Ok(timeout) = Duration::try_from_secs_f64(seconds) else {
        field.invalid(report, "timeout is out of range");
        return None;
    };
    if timeout > AUTHORIZATION_TIMEOUT_ADVISED_MAX {
        let reason = format!(
            "timeout of {seconds} seconds is high, consider keeping it under 60 seconds; an unquoted 1m is a million, \"1m\" is a minute"
        );
        report.warn(&field.node.position, field.name, reason);
    }
    Some(timeout).filter(|timeout| !timeout.is_zero())
}

/// Reads a permissions map.
pub(super) fn permissions(field: &Field<'_>, report: &mut Report) -> Option<Permissions> {
    let map = field.map(report)?;
    let mut permissions = Permissions::default();
    for member in in_file_order(map) {
        match member.key().as_str() {
            "pub" | "publish" | "import" => {
                permissions.publish = subject_permission(&member, report, Queues::Refused);
            }
            "sub" | "subscribe" | "export" => {
                permissions.subscribe = subject_permission(&member, report, Queues::Allowed);
            }
            "publish_allow_responses" | "allow_responses" => {
                permissions.responses = responses(&member, report);
            }
            _ => member.unknown(report),
        }
    }
    if permissions.responses.is_some() {
        // To allow replies is to allow nothing else, unless it is said.
        let publish = permissions.publish.get_or_insert_default();
        publish.allow.get_or_insert_default();
    }
    Some(permissions)
}

/// Whether a subject may name a queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queues {
    Allowed,
    Refused,
}

fn subject_permission(
    field: &Field<'_>,
    report: &mut Report,
    queues: Queues,
) -> Option<SubjectPermission> {
    let Value::Map(map) = field.value() else {
        return Some(SubjectPermission {
            allow: Some(subjects(field.node, field.name, report, queues)?),
            deny: Vec::new(),
        });
    };
    if map.is_empty() {
        return None;
    }
    let mut permission = SubjectPermission::default();
    for member in in_file_order(map) {
        match member.key().as_str() {
            "allow" => permission.allow = subjects(member.node, member.name, report, queues),
            "deny" => {
                permission.deny =
                    subjects(member.node, member.name, report, queues).unwrap_or_default();
            }
            _ => member.unknown(report),
        }
    }
    Some(permission)
}

fn subjects(node: &Node, name: &str, report: &mut Report, queues: Queues) -> Option<Vec<String>> {
    let subjects = Field { name, node }.strings(report)?;
    for subject in &subjects {
        if let Err(reason) = check_subject(subject, queues) {
            report.error(&node.position, OptionProblem::Invalid(reason));
            return None;
        }
    }
    Some(subjects)
}

fn check_subject(subject: &str, queues: Queues) -> Result<(), String> {
    if valid_subject(subject) {
        return Ok(());
    }
    let mut words = subject.split_whitespace();
    match (queues, words.next(), words.next(), words.next()) {
        (Queues::Allowed, Some(subject), Some(queue), None) => {
            if !valid_subject(subject) {
                Err(format!("subject {subject:?} is not a valid subject"))
            } else if !valid_subject(queue) {
                Err(format!("queue {queue:?} is not a valid queue"))
            } else {
                Ok(())
            }
        }
        _ => Err(format!("subject {subject:?} is not a valid subject")),
    }
}

/// No empty token, no white space, `>` only at the end.
fn valid_subject(subject: &str) -> bool {
    let mut tokens = subject.split('.').peekable();
    while let Some(token) = tokens.next() {
        let sound = !token.is_empty() && !token.contains(char::is_whitespace);
        if !sound || (token == ">" && tokens.peek().is_some()) {
            return false;
        }
    }
    true
}

fn responses(field: &Field<'_>, report: &mut Report) -> Option<ResponsePermission> {
    let mut replies = RESPONSES_DEFAULT;
    let mut expires = Some(RESPONSE_TIME_DEFAULT);
    match field.value() {
        Value::Bool(false) => return None,
        Value::Bool(true) => {}
        Value::Map(map) => {
            for member in in_file_order(map) {
                match member.key().as_str() {
                    "max" | "max_msgs" | "max_messages" | "max_responses" => {
                        replies = member
                            .integer(report)
                            .filter(|max| *max != 0)
                            .unwrap_or(replies);
                    }
                    "expires" | "expiration" | "ttl" => {
                        if let Some(time) = response_time(&member, report) {
                            expires = time;
                        }
                    }
                    _ => member.unknown(report),
                }
            }
        }
        _ => {
            field.wrong_type(report, "a boolean or a map");
            return None;
        }
    }
    Some(ResponsePermission {
        replies_max: u64::try_from(replies).ok(),
        expires,
    })
}

/// `Some(None)` is no limit: a negative duration. Zero keeps the default.
fn response_time(field: &Field<'_>, report: &mut Report) -> Option<Option<Duration>> {
    let text = field.string(report)?;
    match parse_nanoseconds(&text) {
        Ok(0) => None,
        Ok(nanoseconds) => Some(u64::try_from(nanoseconds).ok().map(Duration::from_nanos)),
        Err(error) => {
            field.invalid(report, format!("error parsing expires: {error}"));
            None
        }
    }
}
