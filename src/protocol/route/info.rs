//! What two servers say of themselves when a route begins, and later of each other.

use serde::{Deserialize, Serialize};

/// The largest `INFO` or `CONNECT` that is believed.
pub const JSON_BYTES_MAX: usize = 64 * 1024;

/// Subjects that a server lets through, as it tells its peers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubjectRules {
    /// Only these, when there are any.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub allow: Vec<String>,
    /// Not these.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub deny: Vec<String>,
}

/// The `INFO` of a route, in the order the reference writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteInfo {
    /// The identity of the server's run.
    pub server_id: String,
    /// Its name.
    pub server_name: String,
    /// Its version.
    pub version: String,
    /// What it can do on a route.
    pub proto: i64,
    /// What it was built from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub git_commit: String,
    /// What it was built with.
    pub go: String,
    /// The address its routes listen on.
    pub host: String,
    /// The port its routes listen on.
    pub port: u16,
    /// Whether messages may carry headers.
    pub headers: bool,
    /// Whether `CONNECT` must carry credentials.
    #[serde(skip_serializing_if = "is_false")]
    pub auth_required: bool,
    /// Whether the connection is encrypted.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_required: bool,
    /// Whether the peer must show a certificate.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_verify: bool,
    /// The largest message.
    pub max_payload: i64,
    /// Whether JetStream is on.
    #[serde(skip_serializing_if = "is_false")]
    pub jetstream: bool,
    /// Where to dial it, as a URL.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// Something that nobody signs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nonce: String,
    /// Its cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// Whether that name was made up.
    #[serde(skip_serializing_if = "is_false")]
    pub cluster_dynamic: bool,
    /// Its JetStream domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Where clients connect to it.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub connect_urls: Vec<String>,
    /// Where clients connect to it over WebSocket.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub ws_connect_urls: Vec<String>,
    /// Whether it is about to leave.
    #[serde(skip_serializing_if = "is_false")]
    pub ldm: bool,
    /// How it compresses, or would.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub compression: String,
    /// What it asks us to pass on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import: Option<SubjectRules>,
    /// What it takes from us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<SubjectRules>,
    /// Whether it takes subscriptions with the cluster they come from.
    #[serde(skip_serializing_if = "is_false")]
    pub lnoc: bool,
    /// Whether it takes their ends with the cluster too.
    #[serde(skip_serializing_if = "is_false")]
    pub lnocu: bool,
    /// How many connections it wants with each server; 0 when it knows of none.
    #[serde(skip_serializing_if = "is_zero")]
    pub route_pool_size: i64,
    /// Which of them this one is.
    #[serde(skip_serializing_if = "is_zero")]
    pub route_pool_idx: i64,
    /// The account that this connection is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route_account: String,
    /// Names a question about a new account route.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route_acc_add_reqid: String,
    /// How far word of it is passed on: 0 as ever, 1 not at all, 2 even when it was only heard of.
    #[serde(skip_serializing_if = "is_zero")]
    pub gossip_mode: i64,
    /// The gateway that it speaks of.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Where its gateway is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway_url: String,
    /// The version of the links that it takes on this port; 0 for none. Ours alone.
    #[serde(skip_serializing_if = "is_zero")]
    pub links: i64,
}

/// Word of a server is passed on as ever.
pub const GOSSIP_DEFAULT: i64 = 0;
/// Word of a server is not passed on.
pub const GOSSIP_DISABLED: i64 = 1;
/// Word of a server is passed on even by those who only heard of it.
pub const GOSSIP_OVERRIDE: i64 = 2;

/// The `CONNECT` of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteConnect {
    /// Always true.
    pub echo: bool,
    /// Always false.
    pub verbose: bool,
    /// Always false.
    pub pedantic: bool,
    /// The user.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Its password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pass: String,
    /// Whether the connection is encrypted.
    pub tls_required: bool,
    /// The identity of the server's run.
    pub name: String,
    /// Its cluster.
    pub cluster: String,
    /// Whether that name was made up.
    #[serde(rename = "cluster_dynamic", skip_serializing_if = "is_false")]
    pub dynamic: bool,
    /// Whether messages may carry headers.
    pub headers: bool,
    /// Whether it takes subscriptions with the cluster they come from.
    #[serde(skip_serializing_if = "is_false")]
    pub lnoc: bool,
    /// A client library's language: only a client that is lost says it.
    #[serde(skip_serializing)]
    pub lang: String,
    /// A gateway's name: only a gateway that is lost says it.
    #[serde(skip_serializing)]
    pub gateway: String,
}

/// The credentials in any line that a peer may begin with.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PeerCredentials {
    /// The user.
    pub user: Option<String>,
    /// Its password.
    pub pass: Option<String>,
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Go writes a list without memory as null.
fn or_default<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(source)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_info_is_read_as_it_was_written_and_unknown_fields_are_passed_over() {
        let info = RouteInfo {
            server_id: "N".into(),
            route_pool_size: 3,
            export: Some(SubjectRules::default()),
            ..RouteInfo::default()
        };
        let text = serde_json::to_string(&info).unwrap();
        assert!(
            !text.contains("gossip_mode") && !text.contains("links"),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<RouteInfo>(&text).unwrap(), info);
        let text = r#"{"server_id":"N","connect_urls":null,"leafnode_urls":["x"],"later":{}}"#;
        assert_eq!(
            serde_json::from_str::<RouteInfo>(text).unwrap().server_id,
            "N"
        );
    }
}
