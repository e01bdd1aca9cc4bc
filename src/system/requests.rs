//! The questions that the system account may be asked, and their answers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::envelope::{Refusal, Sequence, response};
use super::events::{AccountFigures, account_connections};
use super::{statsz, user};
use crate::broker::{Broker, Inbound};
use crate::jetstream::monitor::{JetStreamInfo, Query};
use crate::monitor::edges::routez;
use crate::monitor::endpoints::Monitor;
use crate::monitor::healthz::{Question as HealthQuestion, health};
use crate::monitor::observed::{Facts, json_time};
use crate::monitor::varz::varz;

/// The services of the server: `$SYS.REQ.SERVER.<id>.X` and `$SYS.REQ.SERVER.PING.X`.
pub(super) const SERVER_SERVICES: [&str; 6] = ["IDZ", "STATSZ", "VARZ", "JSZ", "HEALTHZ", "ROUTEZ"];
/// The services about an account: `$SYS.REQ.ACCOUNT.<account>.X`.
pub(super) const ACCOUNT_SERVICES: [&str; 3] = ["JSZ", "STATZ", "CONNS"];
/// The old name of `$SYS.REQ.SERVER.PING.STATSZ`.
pub(super) const OLD_PING: &str = "$SYS.REQ.SERVER.PING";
/// What the clients of every account may ask.
pub(super) const USER_INFO: &str = "$SYS.REQ.USER.INFO";

/// What a subject asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question<'a> {
    Identity,
    Statistics,
    General,
    JetStream,
    Health,
    Routes,
    AccountJetStream(&'a str),
    /// The figures of this account, or of every one.
    AccountFigures(Option<&'a str>),
    AccountConnections(&'a str),
    User,
}

impl<'a> Question<'a> {
    /// What the subject asks; `None` when it is none of ours.
    pub(super) fn parse(subject: &'a str) -> Option<Self> {
        if subject == USER_INFO {
            return Some(Self::User);
        }
        if subject == OLD_PING {
            return Some(Self::Statistics);
        }
        if let Some(rest) = subject.strip_prefix("$SYS.REQ.SERVER.") {
            return Some(match rest.rsplit_once('.')?.1 {
                "IDZ" => Self::Identity,
                "STATSZ" => Self::Statistics,
                "VARZ" => Self::General,
                "JSZ" => Self::JetStream,
                "HEALTHZ" => Self::Health,
                "ROUTEZ" => Self::Routes,
                _ => return None,
            });
        }
        let (account, service) = subject
            .strip_prefix("$SYS.REQ.ACCOUNT.")?
            .rsplit_once('.')?;
        Some(match (account, service) {
            ("PING", "STATZ") => Self::AccountFigures(None),
            (account, "STATZ") => Self::AccountFigures(Some(account)),
            (account, "JSZ") => Self::AccountJetStream(account),
            (account, "CONNS") => Self::AccountConnections(account),
            _ => return None,
        })
    }
}

/// Which servers a question is for: all that match what is said.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    server_name: String,
    cluster: String,
    host: String,
    exact_match: bool,
    tags: Vec<String>,
    domain: String,
}

impl Filter {
    fn matches(&self, facts: &Facts) -> bool {
        let named = |wanted: &str, own: &str| match (wanted, self.exact_match) {
            ("", _) => true,
            (wanted, true) => own == wanted,
            (wanted, false) => own.contains(wanted),
        };
        named(&self.server_name, &facts.server_name)
            && named(&self.host, &facts.options.host)
            // This server has no cluster, no domain and no tags.
            && named(&self.cluster, "")
            && self.domain.is_empty()
            && self.tags.is_empty()
    }
}

/// What a question about streams may say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamsOptions {
    account: String,
    accounts: bool,
    streams: bool,
    consumer: bool,
    direct_consumer: bool,
    config: bool,
    leader_only: bool,
    stream_leader_only: bool,
    offset: i64,
    limit: i64,
}

impl StreamsOptions {
    fn query(&self) -> Query {
        Query {
            account: Some(self.account.clone()).filter(|account| !account.is_empty()),
            accounts: self.accounts,
            streams: self.streams,
            consumers: self.consumer,
            direct_consumers: self.direct_consumer,
            config: self.config,
            stream_leader_only: self.stream_leader_only,
            offset: usize::try_from(self.offset).unwrap_or(0),
            // The reference takes a negative limit for none.
            limit: usize::try_from(self.limit).unwrap_or(usize::MAX),
        }
    }
}

/// What a question about the figures of accounts may say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FiguresOptions {
    accounts: Vec<String>,
    include_unused: bool,
}

/// What answers need.
pub(super) struct Desk<'a> {
    pub(super) monitor: &'a Monitor,
    pub(super) broker: &'a Broker,
    pub(super) sequence: &'a Sequence,
}

impl Desk<'_> {
    /// The answer, if there is to be one. May wait for streams.
    pub(super) fn answer(&self, question: Question<'_>, request: &Inbound) -> Option<Vec<u8>> {
        let facts = self.monitor.server.facts();
        if question == Question::User {
            return Some(self.respond(user::info(&facts.options, request)));
        }
        let body = match body(&request.payload) {
            Ok(body) => body,
            Err(refusal) => return Some(self.respond::<()>(Err(refusal))),
        };
        match read::<Filter>(&body) {
            Ok(filter) if !filter.matches(facts) => return None,
            Ok(_) => {}
            Err(refusal) => return Some(self.respond::<()>(Err(refusal))),
        }
        match question {
            Question::Identity => Some(identity(facts)),
            Question::Statistics => Some(statsz::payload(self.monitor, self.broker, self.sequence)),
            Question::General => Some(self.respond(Ok(varz(self.monitor)))),
            Question::Routes => Some(self.respond(Ok(routez(self.monitor)))),
            Question::JetStream => {
                let asked = read::<StreamsOptions>(&body);
                // Who does not lead leaves the answer to who does.
                if asked.as_ref().is_ok_and(|asked| asked.leader_only) && !self.leads_meta() {
                    return None;
                }
                Some(self.respond(asked.map(|asked| self.streams(&asked.query()))))
            }
            Question::AccountJetStream(account) => {
                Some(self.respond(self.streams_of(account, &body)))
            }
            Question::Health => {
                let asked = read::<HealthQuestion>(&body);
                Some(self.respond(asked.map(|asked| health(self.monitor, &asked))))
            }
            Question::AccountFigures(account) => self.figures(account, &body),
            Question::AccountConnections(account) => {
                let account = self.broker.account(account)?;
                (account.connection_count() > 0)
                    .then(|| account_connections(facts, self.sequence, &account))
            }
            Question::User => None,
        }
    }

    fn respond<T: Serialize>(&self, answer: Result<T, Refusal>) -> Vec<u8> {
        response(self.sequence.info(self.monitor.server.facts()), answer)
    }

    fn leads_meta(&self) -> bool {
        let streams = self.monitor.server.streams();
        streams.is_some_and(|streams| streams.leads_meta())
    }

    fn streams(&self, query: &Query) -> JetStreamInfo {
        let server_id = &self.monitor.server.facts().server_id;
        match self.monitor.server.streams() {
            Some(streams) => streams.info(query, server_id),
            None => JetStreamInfo::disabled(server_id, json_time(std::time::SystemTime::now())),
        }
    }

    fn streams_of(&self, account: &str, body: &Value) -> Result<Value, Refusal> {
        let mut query = read::<StreamsOptions>(body)?.query();
        query.account = Some(account.to_owned());
        let Some(streams) = self.monitor.server.streams() else {
            return Err(Refusal::failed("jetstream not enabled"));
        };
        let info = streams.info(&query, &self.monitor.server.facts().server_id);
        let found = info.account_details.into_iter().next();
        let found = found
            .ok_or_else(|| Refusal::failed(format!("account {account:?} not jetstream enabled")))?;
        serde_json::to_value(found).map_err(Refusal::failed)
    }

    fn figures(&self, account: Option<&str>, body: &Value) -> Option<Vec<u8>> {
        let mut asked = match read::<FiguresOptions>(body) {
            Ok(asked) => asked,
            Err(refusal) => return Some(self.respond::<()>(Err(refusal))),
        };
        if let Some(account) = account {
            asked.accounts = vec![account.to_owned()];
        }
        let mut accounts = self.broker.accounts();
        accounts.retain(|account| {
            let is_meant = match asked.accounts.is_empty() {
                true => true,
                false => asked.accounts.iter().any(|name| name == account.name()),
            };
            is_meant && (asked.include_unused || account.connection_count() > 0)
        });
        if accounts.is_empty() && !asked.include_unused {
            return None;
        }
        accounts.sort_by(|one, other| one.name().cmp(other.name()));
        #[derive(Serialize)]
        struct Statz<'a> {
            server_id: &'a str,
            now: crate::jetstream::types::Time,
            account_statz: Vec<AccountFigures<'a>>,
        }
        Some(
            self.respond(Ok(Statz {
                server_id: &self.monitor.server.facts().server_id,
                now: json_time(std::time::SystemTime::now()),
                account_statz: accounts
                    .iter()
                    .map(|account| AccountFigures::of(account))
                    .collect(),
            })),
        )
    }
}

/// The body of a question; without one nothing is said.
fn body(bytes: &[u8]) -> Result<Value, Refusal> {
    match bytes.is_empty() {
        true => Ok(Value::Object(serde_json::Map::new())),
        false => serde_json::from_slice(bytes).map_err(Refusal::bad_request),
    }
}

fn read<T: for<'a> Deserialize<'a>>(body: &Value) -> Result<T, Refusal> {
    T::deserialize(body).map_err(Refusal::bad_request)
}

fn identity(facts: &Facts) -> Vec<u8> {
    #[derive(Serialize)]
    struct Identity<'a> {
        name: &'a str,
        host: &'a str,
        id: &'a str,
    }
    crate::jetstream::types::encode(&Identity {
        name: &facts.server_name,
        host: &facts.options.host,
        id: &facts.server_id,
    })
}
