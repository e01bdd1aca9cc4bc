//! Requests that another server answers, where JetStream runs on several.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::types::{ApiError, ErrorCode};
use super::handler::Answer;
use super::route::Operation;
use crate::broker::{ClientInfo, Inbound};

/// An API request as it is carried between servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Carried {
    /// The account of whoever asks.
    pub account: String,
    /// The subject, which names the operation.
    pub subject: String,
    /// The value of `Nats-Required-Api-Level`.
    pub required_level: Bytes,
    /// The client that asks, as far as it is known.
    pub client: Option<Box<AskingClient>>,
    /// The request.
    pub body: Bytes,
}

/// A client that asks something of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AskingClient {
    /// Who it is.
    pub info: ClientInfo,
    /// The server that it is connected to.
    pub server: String,
    /// That server's cluster; empty for none.
    #[serde(default)]
    pub cluster: String,
}

/// A request that waits for an API worker.
pub(crate) enum Asked {
    /// Of a client.
    Client(Inbound),
    /// Of another server, and who hears the answer.
    Server(Carried, Box<dyn FnOnce(Answer) + Send>),
}

/// Who answers a request instead of this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// The server of that name.
    Server(Arc<str>),
    /// Whoever leads that stream, as soon as it is known.
    Leader {
        /// The stream's account.
        account: Arc<str>,
        /// Its name.
        stream: Arc<str>,
    },
    /// All of them together.
    All,
}

/// Where a request belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whither {
    /// To this server.
    Here,
    /// To others.
    Elsewhere(Way),
    /// To nobody: it is refused with this.
    Refused(ApiError),
}

/// Hears the answer that others gave, or the error that there is none.
pub(crate) type Answered = Box<dyn FnOnce(Result<Answer, ErrorCode>) + Send>;

/// Knows where requests belong, and has others answer them.
pub(crate) trait Elsewhere: Send + Sync + 'static {
    /// Where an operation belongs. Does not wait.
    fn whither(&self, account: &str, operation: Operation<'_>) -> Whither;
    /// Where requests about the cluster itself belong. Does not wait.
    fn whither_administration(&self) -> Whither;
    /// Has others answer a request. Does not wait; `done` is called once, from any thread.
    fn ask(&self, way: Way, carried: Carried, done: Answered);
}
