//! Who may connect: users with passwords or keys, or a token, and which account each is in.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use nkeys::KeyPair;

use crate::broker::permissions::Permissions;
use crate::broker::{Account, Broker, ConnectionLimits};
use crate::config::options::{
    AccountLimitOptions, Authorization, ConnectionType, NkeyUser, Options,
    Permissions as ConfiguredPermissions, User as ConfiguredUser,
};
use crate::protocol::ConnectRequest;
use crate::subject::InvalidSubject;

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
}

impl Login {
    /// Whether it may connect in that way.
    pub fn may_come_by(&self, way: ConnectionType) -> bool {
        let types = self.connection_types.as_ref();
        types.is_none_or(|types| types.contains(&way))
    }
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
enum Secret {
    Plain(String),
    Bcrypt(String),
}

impl Secret {
    fn new(text: &str) -> Self {
        let is_bcrypt = ["$2a$", "$2b$", "$2x$", "$2y$"]
            .iter()
            .any(|prefix| text.starts_with(prefix));
        if is_bcrypt {
            Self::Bcrypt(text.to_owned())
        } else {
            Self::Plain(text.to_owned())
        }
    }

    fn check(&self, given: &str, login: Login) -> Verdict {
        match self {
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
    secret: Secret,
    login: Login,
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
    Token(Secret, Login),
    Users(Users),
}

/// Decides who may connect.
pub struct Authenticator {
    scheme: Scheme,
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
        for account in &options.accounts {
            broker
                .ensure_account(&account.name)
                .set_limits(limits(&account.limits));
        }
        let global = Arc::clone(broker.global());
        let anybody = Login {
            user: String::new(),
            account: Arc::clone(&global),
            permissions: None,
            connection_types: None,
        };
        let scheme = if !options.authorization_required() {
            Scheme::Open(global)
        } else if let Some(token) = &options.authorization.token {
            Scheme::Token(Secret::new(token), anybody)
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
            is_announced,
        })
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

    /// Checks what a client that was given this nonce says about itself.
    pub fn check(&self, request: &ConnectRequest, nonce: &str) -> Verdict {
        match &self.scheme {
            Scheme::Open(account) => Verdict::Granted(Login {
                user: request.user.clone().unwrap_or_default(),
                account: Arc::clone(account),
                permissions: None,
                connection_types: None,
            }),
            Scheme::Token(secret, login) => match &request.auth_token {
                Some(token) => secret.check(token, login.clone()),
                None => Verdict::Refused,
            },
            Scheme::Users(users) => users.check(request, nonce),
        }
    }
}

impl Users {
    fn of(options: &Options, broker: &Broker) -> Result<Self, InvalidSubject> {
        let mut users = Self::default();
        let authorization = &options.authorization;
        let global = broker.global();
        users.add(&authorization.users, &authorization.nkeys, global)?;
        if authorization.user.is_some() || authorization.password.is_some() {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let single = ConfiguredUser {
                name: text(&authorization.user),
                password: text(&authorization.password),
                ..ConfiguredUser::default()
            };
            users.add(&[single], &[], global)?;
        }
        for account in &options.accounts {
            let in_broker = broker.ensure_account(&account.name);
            users.add(&account.users, &account.nkeys, &in_broker)?;
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
    ) -> Result<(), InvalidSubject> {
        let login = |name: &str,
                     permissions: &Option<ConfiguredPermissions>,
                     types: &Option<Vec<ConnectionType>>| {
            let permissions = permissions.as_ref().map(Permissions::new).transpose()?;
            Ok(Login {
                connection_types: types.clone().map(Arc::from),
                user: name.to_owned(),
                account: Arc::clone(account),
                permissions: permissions.map(Arc::new),
            })
        };
        for user in users {
            let known = User {
                secret: Secret::new(&user.password),
                login: login(&user.name, &user.permissions, &user.connection_types)?,
            };
            self.by_name.insert(user.name.clone(), known);
        }
        for user in nkeys {
            let login = login(&user.nkey, &user.permissions, &user.connection_types)?;
            self.by_key.insert(user.nkey.clone(), login);
        }
        Ok(())
    }

    fn check(&self, request: &ConnectRequest, nonce: &str) -> Verdict {
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
        let given = request.pass.as_deref().unwrap_or_default();
        match self.by_name.get(name) {
            Some(user) => user.secret.check(given, user.login.clone()),
            None => Verdict::Refused,
        }
    }
}

/// What an account allows its connections.
fn limits(options: &AccountLimitOptions) -> ConnectionLimits {
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
mod tests {
    use super::*;
    use crate::config::options::{AccountOptions, Authorization};

    fn authenticator(options: &Options) -> Authenticator {
        Authenticator::new(options, &Broker::new()).unwrap()
    }

    fn with_authorization(authorization: Authorization) -> Authenticator {
        authenticator(&Options {
            authorization,
            ..Options::default()
        })
    }

    fn request(json: &str) -> ConnectRequest {
        ConnectRequest::parse(json.as_bytes()).unwrap()
    }

    fn is_granted(verdict: Verdict) -> bool {
        match verdict {
            Verdict::Granted(_) => true,
            Verdict::Refused => false,
            Verdict::Hash(check) => check.run().is_some(),
        }
    }

    #[test]
    fn a_user_needs_its_password_plain_or_hashed() {
        let user = |name: &str, password: &str| ConfiguredUser {
            name: name.into(),
            password: password.into(),
            ..ConfiguredUser::default()
        };
        let hash = bcrypt::hash("secret", 4).unwrap();
        let authenticator = with_authorization(Authorization {
            users: vec![user("a", "a"), user("h", &hash)],
            no_auth_user: Some("a".into()),
            ..Default::default()
        });
        let check = |json| is_granted(authenticator.check(&request(json), ""));
        assert!(authenticator.is_required());
        assert!(check(r#"{"user":"a","pass":"a"}"#));
        assert!(check(r#"{"user":"h","pass":"secret"}"#));
        assert!(check("{}"));
        assert!(!check(r#"{"user":"a","pass":"aa"}"#));
        assert!(!check(r#"{"user":"a"}"#));
        assert!(!check(r#"{"user":"h","pass":"Secret"}"#));
        assert!(!check(r#"{"auth_token":"a"}"#));
    }

    #[test]
    fn a_token_stands_for_everybody() {
        let authenticator = with_authorization(Authorization {
            token: Some("t".into()),
            ..Default::default()
        });
        let check = |json| is_granted(authenticator.check(&request(json), ""));
        assert!(check(r#"{"auth_token":"t"}"#));
        assert!(!check(r#"{"user":"t"}"#));
        assert!(!check("{}"));
    }

    #[test]
    fn without_authorization_everybody_may_connect() {
        let authenticator = with_authorization(Authorization::default());
        assert!(!authenticator.is_required());
        assert!(is_granted(
            authenticator.check(&request(r#"{"user":"x"}"#), "")
        ));
    }

    fn account_of(verdict: Verdict) -> String {
        match verdict {
            Verdict::Granted(login) => login.account.name().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_user_with_a_key_signs_the_nonce_that_it_was_given() {
        let key = KeyPair::new_user();
        let authenticator = authenticator(&Options {
            accounts: vec![AccountOptions {
                name: "A".into(),
                nkeys: vec![NkeyUser {
                    nkey: key.public_key(),
                    ..NkeyUser::default()
                }],
                ..AccountOptions::default()
            }],
            ..Options::default()
        });
        assert!(authenticator.needs_nonce());
        let nonce = new_nonce().unwrap();
        assert_eq!(nonce.len(), 15);
        let signed = |key: &KeyPair, text: &str| {
            let signature = URL_SAFE_NO_PAD.encode(key.sign(text.as_bytes()).unwrap());
            let nkey = key.public_key();
            request(&format!(r#"{{"nkey":"{nkey}","sig":"{signature}"}}"#))
        };
        let mine = signed(&key, &nonce);
        assert_eq!(account_of(authenticator.check(&mine, &nonce)), "A");
        let another = new_nonce().unwrap();
        assert!(!is_granted(authenticator.check(&mine, &another)));
        assert!(!is_granted(authenticator.check(&mine, "")));
        let stranger = signed(&KeyPair::new_user(), &nonce);
        assert!(!is_granted(authenticator.check(&stranger, &nonce)));
        let unsigned = request(&format!(r#"{{"nkey":"{}"}}"#, key.public_key()));
        assert!(!is_granted(authenticator.check(&unsigned, &nonce)));
    }

    #[test]
    fn with_users_for_the_system_account_alone_everybody_else_stays_in_the_global_one() {
        let of_account = |name: &str| Options {
            accounts: vec![AccountOptions {
                name: name.into(),
                users: vec![ConfiguredUser {
                    name: "admin".into(),
                    password: "s".into(),
                    ..ConfiguredUser::default()
                }],
                ..AccountOptions::default()
            }],
            ..Options::default()
        };
        let system = authenticator(&of_account("$SYS"));
        let admin = request(r#"{"user":"admin","pass":"s"}"#);
        assert_eq!(account_of(system.check(&admin, "")), "$SYS");
        assert_eq!(account_of(system.check(&request("{}"), "")), "$G");
        let other = authenticator(&of_account("A"));
        assert_eq!(account_of(other.check(&admin, "")), "A");
        assert!(!is_granted(other.check(&request("{}"), "")));
    }
}
