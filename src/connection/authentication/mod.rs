//! Who may connect: users with passwords or keys, or a token, and which account each is in.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use nkeys::KeyPair;

use crate::broker::permissions::Permissions;
use crate::broker::{Account, Broker, ConnectionLimits};
use crate::config::options::authorization::is_bcrypt;
use crate::config::options::{
    AccountLimitOptions, Authorization, ConnectionType, NkeyUser, Options,
    Permissions as ConfiguredPermissions, TlsOptions, User as ConfiguredUser,
};
use crate::protocol::ConnectRequest;
use crate::subject::InvalidSubject;
use crate::tls::{DistinguishedName, PeerIdentity};

/// Random bytes of a nonce.
const NONCE_BYTES: usize = 11;

/// Whom a client was recognised as.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user's name or public key, empty when nobody asked.
    pub user: String,
    /// The account it is in.
    pub account: Arc<Account>,
    /// What it may do; everything without it.
    pub permissions: Option<Arc<Permissions>>,
    /// How it may connect; in every way without it.
    pub connection_types: Option<Arc<[ConnectionType]>>,
    /// The secret that it has shown to know.
    proven: Option<Arc<Secret>>,
}

impl Login {
    fn new(user: String, account: Arc<Account>) -> Self {
        Self {
            user,
            account,
            permissions: None,
            connection_types: None,
            proven: None,
        }
    }

    /// Whether it may connect in that way.
    pub fn may_come_by(&self, way: ConnectionType) -> bool {
        let types = self.connection_types.as_ref();
        types.is_none_or(|types| types.contains(&way))
    }
}

/// What a client has to show for itself.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// What it says.
    pub request: &'a ConnectRequest,
    /// What it was given to sign.
    pub nonce: &'a str,
    /// Whom its certificate names, where one was verified.
    pub peer: Option<&'a PeerIdentity>,
    /// How it comes.
    pub way: ConnectionType,
    /// As whom it was admitted before: what it has proven then need not be proven again.
    pub before: Option<&'a Login>,
}

/// What became of a client's credentials.
#[derive(Debug)]
pub enum Verdict {
    /// It is who it says.
    Granted(Login),
    /// It is not.
    Refused,
    /// A hash has to be computed first, which takes longer than a connection's task may be busy.
    Hash(HashCheck),
}

/// A slow comparison that still has to be made.
#[derive(Debug)]
pub struct HashCheck {
    hash: String,
    given: String,
    login: Login,
}

impl HashCheck {
    /// Makes the comparison; takes a good part of a second.
    pub fn run(self) -> Option<Login> {
        bcrypt::verify(self.given, &self.hash)
            .unwrap_or(false)
            .then_some(self.login)
    }
}

/// A password or token as configured.
#[derive(PartialEq, Eq)]
enum Secret {
    Plain(String),
    Bcrypt(String),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    fn new(text: &str) -> Self {
        match is_bcrypt(text) {
            true => Self::Bcrypt(text.to_owned()),
            false => Self::Plain(text.to_owned()),
        }
    }

    /// Whether the text is the secret. Who has proven it before is believed: hashes are slow.
    fn check(self: &Arc<Self>, given: &str, login: &Login, before: Option<&Login>) -> Verdict {
        let login = Login {
            proven: Some(Arc::clone(self)),
            ..login.clone()
        };
        if before.is_some_and(|before| before.proven.as_ref() == Some(self)) {
            return Verdict::Granted(login);
        }
        match &**self {
            Self::Plain(secret) if is_same(secret.as_bytes(), given.as_bytes()) => {
                Verdict::Granted(login)
            }
            Self::Plain(_) => Verdict::Refused,
            Self::Bcrypt(hash) => Verdict::Hash(HashCheck {
                hash: hash.clone(),
                given: given.to_owned(),
                login,
            }),
        }
    }
}

/// Compares without telling by its duration how much was right.
fn is_same(secret: &[u8], given: &[u8]) -> bool {
    let mut difference = secret.len() ^ given.len();
    for (at, byte) in given.iter().enumerate() {
        let other = secret.get(at % secret.len().max(1)).copied().unwrap_or(0);
        difference |= usize::from(byte ^ other);
    }
    std::hint::black_box(difference) == 0
}

struct User {
    secret: Arc<Secret>,
    login: Login,
    /// Its name as that of a certificate's subject, when it can be one.
    subject: Option<DistinguishedName>,
    /// It has no password and may come where certificates name the user: nowhere else is it believed.
    needs_certificate: bool,
}

/// Users of all accounts.
#[derive(Default)]
struct Users {
    by_name: HashMap<String, User>,
    by_key: HashMap<String, Login>,
    without_credentials: Option<Login>,
}

enum Scheme {
    Open(Arc<Account>),
    Token(Arc<Secret>, Login),
    Users(Users),
}

/// Decides who may connect.
pub struct Authenticator {
    scheme: Scheme,
    /// Whether a client is the user that its certificate names.
    maps_certificates: bool,
    /// Whether clients are told that they have to say who they are.
    is_announced: bool,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Prepares what the configuration says; the accounts that it names are made.
    pub fn new(options: &Options, broker: &Broker) -> Result<Self, InvalidSubject> {
        let global = Arc::clone(broker.global());
        let anybody = Login::new(String::new(), Arc::clone(&global));
        let scheme = if !options.authorization_required() {
            Scheme::Open(global)
        } else if let Some(token) = &options.authorization.token {
            Scheme::Token(Arc::new(Secret::new(token)), anybody)
        } else {
            let mut users = Users::of(options, broker)?;
            if options.only_system_has_users() {
                users.without_credentials = Some(anybody);
            }
            Scheme::Users(users)
        };
        let is_announced = !matches!(scheme, Scheme::Open(_)) && options.no_auth_user().is_none();
        Ok(Self {
            scheme,
            maps_certificates: options.tls.as_ref().is_some_and(|tls| tls.maps_users),
            is_announced,
        })
    }

    /// Whether a client is the user that its certificate names.
    pub(super) fn maps_certificates(&self) -> bool {
        self.maps_certificates
    }

    /// The same, where clients are or are not the users that their certificates name.
    #[must_use]
    pub fn with_certificates(mut self, maps: bool) -> Self {
        self.maps_certificates = maps;
        self
    }

    /// For clients of a listener that says for itself who may connect; `None` where it says nothing of that. A single user or token is in the global account;
    /// whoever need not say who it is, is one of the users of all listeners.
    pub fn of_listener(
        options: &Options,
        own: &Authorization,
        broker: &Broker,
    ) -> Result<Option<Self>, InvalidSubject> {
        if own.required() {
            let alone = Options {
                authorization: Authorization {
                    no_auth_user: None,
                    ..own.clone()
                },
                accounts: Vec::new(),
                ..options.clone()
            };
            return Self::new(&alone, broker).map(Some);
        }
        let Some(user) = &own.no_auth_user else {
            return Ok(None);
        };
        let mut authenticator = Self::new(options, broker)?;
        if let Scheme::Users(users) = &mut authenticator.scheme {
            let by_name = users.by_name.get(user).map(|user| &user.login);
            users.without_credentials = by_name.or_else(|| users.by_key.get(user)).cloned();
            authenticator.is_announced = users.without_credentials.is_none();
        }
        Ok(Some(authenticator))
    }

    /// Whether a client must say who it is before it may do anything else.
    pub fn is_required(&self) -> bool {
        !matches!(self.scheme, Scheme::Open(_))
    }

    /// Whether clients are told that they have to say who they are: not when one who does not is taken for a user.
    pub fn is_announced(&self) -> bool {
        self.is_announced
    }

    /// Whether each client needs something of its own to sign.
    pub fn needs_nonce(&self) -> bool {
        matches!(&self.scheme, Scheme::Users(users) if !users.by_key.is_empty())
    }

    /// Whom a client without credentials is taken for, when it need not say who it is.
    pub fn without_credentials(&self) -> Option<Login> {
        match &self.scheme {
            Scheme::Users(users) => users.without_credentials.clone(),
            _ => None,
        }
    }

    /// Checks what a client has to show for itself.
    pub fn check(&self, client: &Credentials<'_>) -> Verdict {
        let request = client.request;
        match &self.scheme {
            Scheme::Open(account) => {
                let user = request.user.clone().unwrap_or_default();
                Verdict::Granted(Login::new(user, Arc::clone(account)))
            }
            Scheme::Token(secret, login) => match &request.auth_token {
                Some(token) => secret.check(token, login, client.before),
                None => Verdict::Refused,
            },
            Scheme::Users(users) => users.check(client, self.maps_certificates),
        }
    }

    /// Whether there is a user of this name or key; of everybody who has neither, yes.
    pub fn knows(&self, request: &ConnectRequest) -> bool {
        let said = |text: &'_ Option<String>| text.clone().filter(|text| !text.is_empty());
        match (&self.scheme, said(&request.nkey), said(&request.user)) {
            (Scheme::Users(users), Some(nkey), _) => users.by_key.contains_key(&nkey),
            (Scheme::Users(users), None, Some(name)) => users.by_name.contains_key(&name),
            _ => true,
        }
    }
}

impl Users {
    fn of(options: &Options, broker: &Broker) -> Result<Self, InvalidSubject> {
        let mut users = Self::default();
        let authorization = &options.authorization;
        let global = broker.global();
        let mapping = MappingListeners::of(options);
        users.add(&authorization.users, &authorization.nkeys, global, mapping)?;
        if authorization.user.is_some() || authorization.password.is_some() {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let single = ConfiguredUser {
                name: text(&authorization.user),
                password: text(&authorization.password),
                ..ConfiguredUser::default()
            };
            users.add(&[single], &[], global, mapping)?;
        }
        for account in &options.accounts {
            let in_broker = broker.ensure_account(&account.name);
            users.add(&account.users, &account.nkeys, &in_broker, mapping)?;
        }
        users.without_credentials = options.no_auth_user().and_then(|name| {
            let by_name = users.by_name.get(name).map(|user| &user.login);
            by_name.or_else(|| users.by_key.get(name)).cloned()
        });
        Ok(users)
    }

    fn add(
        &mut self,
        users: &[ConfiguredUser],
        nkeys: &[NkeyUser],
        account: &Arc<Account>,
        mapping: MappingListeners,
    ) -> Result<(), InvalidSubject> {
        let login = |name: &str,
                     permissions: &Option<ConfiguredPermissions>,
                     types: &Option<Vec<ConnectionType>>| {
            let permissions = permissions.as_ref().map(Permissions::new).transpose()?;
            Ok(Login {
                connection_types: types.clone().map(Arc::from),
                permissions: permissions.map(Arc::new),
                ..Login::new(name.to_owned(), Arc::clone(account))
            })
        };
        for user in users {
            let login = login(&user.name, &user.permissions, &user.connection_types)?;
            let known = User {
                secret: Arc::new(Secret::new(&user.password)),
                subject: DistinguishedName::parse(&user.name),
                needs_certificate: user.password.is_empty() && mapping.admit(&login),
                login,
            };
            self.by_name.insert(user.name.clone(), known);
        }
        for user in nkeys {
            let login = login(&user.nkey, &user.permissions, &user.connection_types)?;
            self.by_key.insert(user.nkey.clone(), login);
        }
        Ok(())
    }

    fn check(&self, client: &Credentials<'_>, maps_certificates: bool) -> Verdict {
        let Credentials { request, nonce, .. } = *client;
        let names_a_key =
            !self.by_key.is_empty() && request.nkey.as_ref().is_some_and(|nkey| !nkey.is_empty());
        let given = request.pass.as_deref().unwrap_or_default();
        if maps_certificates && !names_a_key && !self.by_name.is_empty() {
            return match client.peer.and_then(|peer| self.named_by(peer, client.way)) {
                Some(user) => user.secret.check(given, &user.login, client.before),
                None => Verdict::Refused,
            };
        }
        if let Some(login) = &self.without_credentials
            && !has_credentials(request)
        {
            return Verdict::Granted(login.clone());
        }
        if let Some(nkey) = request.nkey.as_deref().filter(|nkey| !nkey.is_empty()) {
            return match self.by_key.get(nkey) {
                Some(login) if has_signed(nkey, request, nonce) => Verdict::Granted(login.clone()),
                _ => Verdict::Refused,
            };
        }
        let name = request.user.as_deref().unwrap_or_default();
        match self.by_name.get(name) {
            Some(user) if user.needs_certificate && !maps_certificates => Verdict::Refused,
            Some(user) => user.secret.check(given, &user.login, client.before),
            None => Verdict::Refused,
        }
    }

    /// The user whom a certificate names: by one of its further names, or by its subject.
    fn named_by(&self, peer: &PeerIdentity, way: ConnectionType) -> Option<&User> {
        let by_name = |name: &str| {
            let user = self.by_name.get(name);
            user.filter(|user| user.login.may_come_by(way))
        };
        if let Some(user) = peer.names().find_map(by_name) {
            return Some(user);
        }
        if let Some(subject) = &peer.subject {
            let candidates = || {
                let users = self.by_name.values();
                users
                    .filter(|user| user.login.may_come_by(way))
                    .filter_map(|user| Some((user, user.subject.as_ref()?)))
            };
            let same = candidates().find(|(_, name)| name.is_same(subject));
            let same = same.or_else(|| candidates().find(|(_, name)| name.has_same_parts(subject)));
            if let Some((user, _)) = same {
                return Some(user);
            }
        }
        peer.subject_texts().find_map(by_name)
    }
}

/// Which listeners take a client for the user that its certificate names.
#[derive(Debug, Clone, Copy)]
struct MappingListeners {
    standard: bool,
    websocket: bool,
}

impl MappingListeners {
    fn of(options: &Options) -> Self {
        let websocket = options.websocket.as_ref().filter(|own| own.is_enabled());
        let maps = |tls: Option<&TlsOptions>| tls.is_some_and(|tls| tls.maps_users);
        Self {
            standard: maps(options.tls.as_ref()),
            websocket: maps(websocket.and_then(|own| own.tls.as_ref())),
        }
    }

    /// Whether this user may come to one of them.
    fn admit(self, login: &Login) -> bool {
        (self.standard && login.may_come_by(ConnectionType::Standard))
            || (self.websocket && login.may_come_by(ConnectionType::WebSocket))
    }
}

/// What an account allows its connections.
pub(super) fn limits(options: &AccountLimitOptions) -> ConnectionLimits {
    ConnectionLimits {
        connections_max: options.connections_max,
        subscriptions_max: options.subscriptions_max,
        payload_bytes_max: options.payload_bytes_max,
    }
}

/// Whether the client holds the secret half of the key: only then could it sign the nonce.
fn has_signed(nkey: &str, request: &ConnectRequest, nonce: &str) -> bool {
    let signature = request.sig.as_deref().unwrap_or_default();
    // Clients differ in whether they pad.
    let signature = signature.trim_end_matches('=');
    let bytes = URL_SAFE_NO_PAD
        .decode(signature)
        .or_else(|_| STANDARD_NO_PAD.decode(signature));
    match (bytes, KeyPair::from_public_key(nkey)) {
        (Ok(bytes), Ok(key)) => !nonce.is_empty() && key.verify(nonce.as_bytes(), &bytes).is_ok(),
        _ => false,
    }
}

/// Something to sign that was never given to anybody before.
pub(super) fn new_nonce() -> Result<String, getrandom::Error> {
    let mut bytes = [0; NONCE_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn has_credentials(request: &ConnectRequest) -> bool {
    [
        &request.user,
        &request.pass,
        &request.auth_token,
        &request.nkey,
        &request.jwt,
    ]
    .iter()
    .any(|field| field.as_ref().is_some_and(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests;
