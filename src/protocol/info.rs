//! The `INFO` that a server shows to its clients.

use serde::{Deserialize, Serialize};

/// Everything a client learns about the server, in the order it is written.
///
/// The server supplies one value for all; a connection fills in what is its own ([`ServerInfo::client_id`],
/// [`ServerInfo::client_ip`], and after the first pong [`ServerInfo::connect_info`] with its account).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerInfo {
    /// The server's public identity.
    pub server_id: String,
    /// The configured name, or the identity again.
    pub server_name: String,
    /// The version that clients test features against.
    pub version: String,
    /// The protocol level; 1 means that further `INFO`s may follow.
    pub proto: u8,
    /// The commit it was built from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub git_commit: String,
    /// What the server was built with.
    pub go: String,
    /// The address it listens on.
    pub host: String,
    /// The port it listens on.
    pub port: u16,
    /// Whether messages may carry headers.
    pub headers: bool,
    /// Whether `CONNECT` must carry credentials.
    #[serde(skip_serializing_if = "is_false")]
    pub auth_required: bool,
    /// Whether the client must start TLS now.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_required: bool,
    /// Whether the client must show a certificate.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_verify: bool,
    /// Whether the client may start TLS now.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_available: bool,
    /// The most bytes of headers and payload that one message may have.
    pub max_payload: i32,
    /// Whether JetStream is enabled.
    #[serde(skip_serializing_if = "is_false")]
    pub jetstream: bool,
    /// The address other servers reach this one at.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// The connection's number.
    #[serde(skip_serializing_if = "is_zero")]
    pub client_id: u64,
    /// The address the server sees the client at.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_ip: String,
    /// What the client must sign when it logs in with a key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nonce: String,
    /// The cluster's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// Whether the cluster's name was made up.
    #[serde(skip_serializing_if = "is_false")]
    pub cluster_dynamic: bool,
    /// The JetStream domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Where else a client can connect to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connect_urls: Vec<String>,
    /// The same for clients over WebSocket, who are told of it as their `connect_urls`.
    #[serde(skip)]
    pub websocket_urls: Vec<String>,
    /// Whether the server is about to leave.
    #[serde(skip_serializing_if = "is_false")]
    pub ldm: bool,
    /// Whether this is the answer to a `CONNECT`.
    #[serde(skip_serializing_if = "is_false")]
    pub connect_info: bool,
    /// The account the client was put into.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_account: String,
    /// Whether that is the system account.
    #[serde(skip_serializing_if = "is_false")]
    pub acc_is_sys: bool,
    /// The level of the JetStream API.
    #[serde(skip_serializing_if = "is_zero_level")]
    pub api_lvl: u32,
    /// The server's public curve key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub xkey: String,
}

impl Default for ServerInfo {
    fn default() -> Self {
        Self {
            server_id: String::new(),
            server_name: String::new(),
            version: String::new(),
            proto: 1,
            git_commit: String::new(),
            go: String::new(),
            host: String::new(),
            port: 0,
            headers: true,
            auth_required: false,
            tls_required: false,
            tls_verify: false,
            tls_available: false,
            max_payload: 1 << 20,
            jetstream: false,
            ip: String::new(),
            client_id: 0,
            client_ip: String::new(),
            nonce: String::new(),
            cluster: String::new(),
            cluster_dynamic: false,
            domain: String::new(),
            connect_urls: Vec::new(),
            websocket_urls: Vec::new(),
            ldm: false,
            connect_info: false,
            remote_account: String::new(),
            acc_is_sys: false,
            api_lvl: 0,
            xkey: String::new(),
        }
    }
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_zero_level(value: &u32) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::ServerInfo;

    #[test]
    fn an_info_line_of_the_reference_is_written_back_unchanged() {
        let line = concat!(
            r#"{"server_id":"NCZ","server_name":"golden","version":"2.14.5","proto":1,"#,
            r#""git_commit":"d3bc045","go":"go1.26.5","host":"127.0.0.1","port":24731,"#,
            r#""headers":true,"max_payload":1048576,"client_id":6,"client_ip":"127.0.0.1","#,
            r#""connect_info":true,"remote_account":"$G","api_lvl":4,"xkey":"XA3"}"#
        );
        let info: ServerInfo = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&info).unwrap(), line);
    }
}
