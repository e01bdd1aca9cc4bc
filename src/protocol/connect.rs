//! What a client says about itself in `CONNECT`.

use serde::Deserialize;

/// The fields of a `CONNECT`, all optional: what is absent keeps what was said before.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ConnectRequest {
    /// Whether each operation is confirmed; true when never said.
    pub verbose: Option<bool>,
    /// Whether publish subjects are checked; true when never said.
    pub pedantic: Option<bool>,
    /// Whether the client's own messages come back to it; true when never said.
    pub echo: Option<bool>,
    /// Whether the client insists on TLS.
    pub tls_required: Option<bool>,
    /// Whether the client understands headers.
    pub headers: Option<bool>,
    /// Whether the client wants to hear that nobody listens.
    pub no_responders: Option<bool>,
    /// The protocol level, 0 or 1.
    pub protocol: Option<i64>,
    /// The public key the client logs in with.
    pub nkey: Option<String>,
    /// A user token.
    pub jwt: Option<String>,
    /// The signature of the nonce.
    pub sig: Option<String>,
    /// A shared token.
    pub auth_token: Option<String>,
    /// The user's name.
    pub user: Option<String>,
    /// The user's password.
    pub pass: Option<String>,
    /// What the client calls this connection.
    pub name: Option<String>,
    /// The client library's language.
    pub lang: Option<String>,
    /// The client library's version.
    pub version: Option<String>,
    /// An account to be put into; no longer allowed.
    pub account: Option<String>,
    /// Whether to create that account; no longer allowed.
    pub new_account: Option<bool>,
}

/// The protocol level that allows the server to send further `INFO`s.
pub const PROTOCOL_WITH_INFO: i64 = 1;

impl ConnectRequest {
    /// Parses the argument of `CONNECT`.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Takes over what a later `CONNECT` says.
    pub fn update(&mut self, later: ConnectRequest) {
        fn take<T>(old: &mut Option<T>, new: Option<T>) {
            if new.is_some() {
                *old = new;
            }
        }
        take(&mut self.verbose, later.verbose);
        take(&mut self.pedantic, later.pedantic);
        take(&mut self.echo, later.echo);
        take(&mut self.tls_required, later.tls_required);
        take(&mut self.headers, later.headers);
        take(&mut self.no_responders, later.no_responders);
        take(&mut self.protocol, later.protocol);
        take(&mut self.nkey, later.nkey);
        take(&mut self.jwt, later.jwt);
        take(&mut self.sig, later.sig);
        take(&mut self.auth_token, later.auth_token);
        take(&mut self.user, later.user);
        take(&mut self.pass, later.pass);
        take(&mut self.name, later.name);
        take(&mut self.lang, later.lang);
        take(&mut self.version, later.version);
        take(&mut self.account, later.account);
        take(&mut self.new_account, later.new_account);
    }

    /// Whether each operation is confirmed.
    pub fn is_verbose(&self) -> bool {
        self.verbose.unwrap_or(true)
    }

    /// Whether publish subjects are checked.
    pub fn is_pedantic(&self) -> bool {
        self.pedantic.unwrap_or(true)
    }

    /// Whether the client's own messages come back to it.
    pub fn wants_echo(&self) -> bool {
        self.echo.unwrap_or(true)
    }

    /// Whether the client understands headers.
    pub fn has_headers(&self) -> bool {
        self.headers.unwrap_or(false)
    }

    /// Whether the client wants to hear that nobody listens.
    pub fn wants_no_responders(&self) -> bool {
        self.no_responders.unwrap_or(false)
    }

    /// The protocol level.
    pub fn protocol_level(&self) -> i64 {
        self.protocol.unwrap_or(0)
    }

    /// Whether it asks for an account of its own choice, which is refused.
    pub fn asks_for_account(&self) -> bool {
        self.new_account.unwrap_or(false) || self.account.as_ref().is_some_and(|a| !a.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::ConnectRequest;

    #[test]
    fn what_is_never_said_has_the_protocols_defaults() {
        let request = ConnectRequest::parse(b"{}").unwrap();
        assert!(request.is_verbose() && request.is_pedantic() && request.wants_echo());
        assert!(!request.has_headers() && !request.wants_no_responders());
        assert_eq!(request.protocol_level(), 0);
    }

    #[test]
    fn a_later_connect_changes_only_what_it_names() {
        let mut request = ConnectRequest::parse(br#"{"verbose":false,"user":"a"}"#).unwrap();
        request.update(ConnectRequest::parse(br#"{"echo":false,"user":null,"x":1}"#).unwrap());
        assert!(!request.is_verbose() && !request.wants_echo());
        assert_eq!(request.user.as_deref(), Some("a"));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        assert!(ConnectRequest::parse(b"{nope}").is_err());
        assert!(ConnectRequest::parse(br#"{"verbose":"yes"}"#).is_err());
    }
}
