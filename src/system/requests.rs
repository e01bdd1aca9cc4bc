//! The answers to what the system account may be asked.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::envelope::{Refusal, Sequence, done_without_data, response};
use super::events::account_connections;
use super::profile::{ProfileQuestion, profile};
use super::question::{AccountService, Order, Question, ServerService};
use super::service::Operator;
use super::{statsz, user};
use crate::broker::{Broker, Inbound};
use crate::jetstream::monitor::{JetStreamInfo, Query};
use crate::monitor::accountz::{self, account_info, accountz};
use crate::monitor::accstatz::{self, account_statz};
use crate::monitor::answer::BadParameter;
use crate::monitor::connz::{self, connz};
use crate::monitor::edges::{gatewayz, leafz};
use crate::monitor::endpoints::Monitor;
use crate::monitor::healthz::{Question as HealthQuestion, health};
use crate::monitor::ipqueuesz::{Question as QueuesQuestion, queues};
use crate::monitor::observed::{Facts, Observed, json_time};
use crate::monitor::raftz::{self, raftz};
use crate::monitor::routez::{self, routez};
use crate::monitor::subsz::{self, subsz};
use crate::monitor::variables::variables;
use crate::monitor::varz::varz;

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
    fn matches(&self, server: &dyn Observed) -> bool {
        let facts = server.facts();
        let named = |wanted: &str, own: &str| match (wanted, self.exact_match) {
            ("", _) => true,
            (wanted, true) => own == wanted,
            (wanted, false) => own.contains(wanted),
        };
        named(&self.server_name, &facts.server_name)
            && named(&self.host, &facts.options.host)
            && named(&self.cluster, &server.cluster_name())
            && (self.domain.is_empty() || self.domain == facts.options.jetstream.domain)
            && {
                let own = server.options();
                let is_own = |tag: &String| own.server_tags.contains(&tag.trim().to_lowercase());
                self.tags.iter().all(is_own)
            }
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
    raft: bool,
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
            groups: self.raft,
            offset: usize::try_from(self.offset).unwrap_or(0),
            // The reference takes a negative limit for none.
            limit: usize::try_from(self.limit).unwrap_or(usize::MAX),
        }
    }
}

/// What answers need.
pub(super) struct Desk<'a> {
    pub(super) monitor: &'a Monitor,
    pub(super) broker: &'a Broker,
    pub(super) sequence: &'a Sequence,
    pub(super) operator: &'a dyn Operator,
}

impl Desk<'_> {
    /// The answer, if there is to be one. May wait for streams.
    pub(super) fn answer(&self, question: Question<'_>, request: &Inbound) -> Option<Vec<u8>> {
        if question == Question::User {
            let options = self.monitor.server.options();
            return Some(self.respond(user::info(&options, request)));
        }
        let body = match body(&request.payload) {
            Ok(body) => body,
            Err(refusal) => return Some(self.respond::<()>(Err(refusal))),
        };
        match read::<Filter>(&body) {
            // Who a server is, is told to everybody who asks.
            Ok(_) if question == Question::Server(ServerService::Identity) => {}
            Ok(filter) if !filter.matches(&*self.monitor.server) => return None,
            Ok(_) => {}
            Err(refusal) => return Some(self.respond::<()>(Err(refusal))),
        }
        match question {
            // These have been answered, or are by others.
            Question::User | Question::Subscribers | Question::SubscriptionCount => None,
            Question::Order(order) => Some(self.order(order, &body)),
            Question::Server(service) => self.about_server(service, &body),
            Question::Account(account, service) => self.about_account(account, service, &body),
            Question::AllFigures => self.figures(None, &body),
        }
    }

    /// Does what is ordered, and says so; nothing is said of what went well but by whom.
    fn order(&self, order: Order, body: &Value) -> Vec<u8> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Target {
            cid: u64,
        }
        let done = read::<Target>(body).and_then(|target| {
            let done = match order {
                Order::Reload => self.operator.reload(),
                Order::Kick => self.operator.kick(target.cid),
                Order::LameDuck => self.operator.send_away(target.cid),
            };
            done.map_err(Refusal::failed)
        });
        match done {
            Ok(()) => done_without_data(self.sequence.info(&*self.monitor.server)),
            Err(refusal) => self.respond::<()>(Err(refusal)),
        }
    }

    fn about_server(&self, service: ServerService, body: &Value) -> Option<Vec<u8>> {
        let monitor = self.monitor;
        let facts = monitor.server.facts();
        Some(match service {
            ServerService::Identity => identity(facts),
            ServerService::Statistics => statsz::payload(monitor, self.broker, self.sequence),
            ServerService::General => self.respond(Ok(varz(monitor))),
            ServerService::Subscriptions => self.respond(
                read::<subsz::Question>(body)
                    .and_then(|asked| subsz(monitor, &asked).map_err(failed)),
            ),
            ServerService::Connections => self.respond(
                read::<connz::Question>(body)
                    .and_then(|asked| connz(monitor, &asked).map_err(failed)),
            ),
            ServerService::Routes => self.respond(
                read::<routez::Question>(body).map(|asked| routez(monitor, asked.listed())),
            ),
            ServerService::Gateways => self.respond(Ok(gatewayz(facts))),
            ServerService::LeafNodes => self.respond(Ok(leafz(facts))),
            ServerService::Accounts => self.respond(
                read::<accountz::Question>(body)
                    .and_then(|asked| accountz(monitor, &asked).map_err(failed)),
            ),
            ServerService::JetStream => {
                let asked = read::<StreamsOptions>(body);
                // Who does not lead leaves the answer to who does.
                if asked.as_ref().is_ok_and(|asked| asked.leader_only) && !self.leads_meta() {
                    return None;
                }
                self.respond(asked.map(|asked| self.streams(&asked.query())))
            }
            ServerService::Groups => {
                self.respond(read::<raftz::Question>(body).map(|asked| raftz(monitor, &asked)))
            }
            ServerService::Health => {
                let asked = read::<HealthQuestion>(body);
                self.respond(asked.map(|asked| health(monitor, &asked)))
            }
            ServerService::Variables => self.respond(Ok(variables())),
            ServerService::Queues => {
                let asked = read::<QueuesQuestion>(body);
                self.respond(asked.map(|asked| queues(monitor, &asked)))
            }
            ServerService::Profile => {
                self.respond(read::<ProfileQuestion>(body).map(|asked| profile(&asked)))
            }
        })
    }

    fn about_account(
        &self,
        account: &str,
        service: AccountService,
        body: &Value,
    ) -> Option<Vec<u8>> {
        let monitor = self.monitor;
        Some(match service {
            AccountService::Subscriptions => {
                self.respond(read::<subsz::Question>(body).and_then(|mut asked| {
                    account.clone_into(&mut asked.account);
                    asked.subscriptions = true;
                    subsz(monitor, &asked).map_err(failed)
                }))
            }
            AccountService::Connections => {
                self.respond(read::<connz::Question>(body).and_then(|mut asked| {
                    account.clone_into(&mut asked.account);
                    connz(monitor, &asked).map_err(failed)
                }))
            }
            AccountService::LeafNodes => self.respond(Ok(leafz(monitor.server.facts()))),
            AccountService::JetStream => self.respond(self.streams_of(account, body)),
            AccountService::Info => self.respond(account_info(monitor, account).map_err(failed)),
            AccountService::Figures => return self.figures(Some(account), body),
            AccountService::ConnectionCount => {
                let account = self.broker.account(account)?;
                if account.connection_count() == 0 {
                    return None;
                }
                account_connections(&*monitor.server, self.sequence, &account)
            }
        })
    }

    fn figures(&self, account: Option<&str>, body: &Value) -> Option<Vec<u8>> {
        let mut asked = match read::<accstatz::Question>(body) {
            Ok(asked) => asked,
            Err(refusal) => return Some(self.respond::<()>(Err(refusal))),
        };
        if let Some(account) = account {
            asked.accounts = vec![account.to_owned()];
        }
        let answer = account_statz(self.monitor, &asked);
        if answer.is_empty() && !asked.include_unused {
            return None;
        }
        Some(self.respond(Ok(answer)))
    }

    fn respond<T: Serialize>(&self, answer: Result<T, Refusal>) -> Vec<u8> {
        response(self.sequence.info(&*self.monitor.server), answer)
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
}

fn failed(reason: BadParameter) -> Refusal {
    Refusal::failed(reason.0)
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
