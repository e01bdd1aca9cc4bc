//! What `/connz` may be asked, over HTTP and over the protocol.

use super::order::Order;
use crate::monitor::answer::{BadParameter, Parameters};
use crate::monitor::subscriptions::Listed;
use serde::Deserialize;
use serde::de::Error as _;

/// Which connections are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionState {
    /// Those that are open.
    #[default]
    Open,
    /// Those that have ended lately.
    Closed,
    /// Both.
    Any,
}

impl ConnectionState {
    fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "" | "open" => Self::Open,
            "closed" => Self::Closed,
            "any" | "all" => Self::Any,
            _ => return None,
        })
    }
}

/// The protocol's questions carry a number.
impl<'de> Deserialize<'de> for ConnectionState {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            0 => Ok(Self::Open),
            1 => Ok(Self::Closed),
            2 => Ok(Self::Any),
            other => Err(D::Error::custom(format!(
                "{other} is no state of a connection"
            ))),
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Question {
    sort: String,
    /// Whether users and accounts are shown.
    pub auth: bool,
    subscriptions: bool,
    subscriptions_detail: bool,
    /// How many connections to leave out.
    pub offset: i64,
    /// How many to show.
    pub limit: i64,
    /// Only this connection, when it is not 0.
    pub cid: u64,
    /// Only connections in this state.
    pub state: ConnectionState,
    /// Only those of this user.
    pub user: String,
    /// Only those of this account.
    #[serde(rename = "acc")]
    pub account: String,
    /// Only those that listen to something that this could match.
    pub filter_subject: String,
    /// Only the one with this MQTT client id.
    pub mqtt_client: String,
}

impl Question {
    pub(super) fn read(parameters: &Parameters) -> Result<Self, BadParameter> {
        let text = |name: &str| parameters.text(name).to_owned();
        let auth = parameters.bool("auth")?;
        let listed = parameters.listed()?;
        let offset = parameters.integer("offset")?;
        let limit = parameters.integer("limit")?;
        let cid = parameters.unsigned("cid")?;
        let named = parameters.text("state");
        let state = ConnectionState::named(named)
            .ok_or_else(|| BadParameter(format!("Error decoding state for {named}")))?;
        Ok(Self {
            sort: text("sort"),
            auth,
            subscriptions: listed == Listed::Subjects,
            subscriptions_detail: listed == Listed::Details,
            offset,
            limit,
            cid,
            state,
            user: text("user"),
            account: text("acc"),
            filter_subject: text("filter_subject"),
            mqtt_client: text("mqtt_client"),
        })
    }

    /// What comes first.
    pub(super) fn order(&self) -> Result<Order, BadParameter> {
        let order = Order::named(&self.sort)
            .ok_or_else(|| BadParameter(format!("invalid sorting option: {}", self.sort)))?;
        let of_closed = match order {
            Order::Stop => "stop",
            Order::Reason => "reason",
            _ => return Ok(order),
        };
        match self.state {
            ConnectionState::Closed => Ok(order),
            _ => Err(BadParameter(format!(
                "sort by {of_closed} only valid on closed connections"
            ))),
        }
    }

    /// Whether it makes sense.
    pub(super) fn check(&self) -> Result<(), BadParameter> {
        match self.subject_filter().is_some() && self.account.is_empty() {
            true => Err(BadParameter(
                "filter by subject only valid with account filtering".into(),
            )),
            false => Ok(()),
        }
    }

    /// What connections must listen to; `>` asks for nothing.
    pub(super) fn subject_filter(&self) -> Option<&str> {
        Some(self.filter_subject.as_str()).filter(|filter| !matches!(*filter, "" | ">"))
    }

    /// How much of their subscriptions is shown.
    pub(super) fn listed(&self) -> Listed {
        Listed::switched(self.subscriptions, self.subscriptions_detail)
    }
}
