//! Who may connect: users with passwords, or a token.

use std::collections::HashMap;
use std::sync::Arc;

use crate::broker::permissions::Permissions;
use crate::config::options::Authorization;
use crate::protocol::ConnectRequest;
use crate::subject::InvalidSubject;

/// Whom a client was recognised as.
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// The user's name, empty when nobody asked.
    pub user: String,
    /// What it may do; everything without it.
    pub permissions: Option<Arc<Permissions>>,
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

enum Scheme {
    Open,
    Token(Secret),
    Users {
        by_name: HashMap<String, User>,
        without_credentials: Option<Login>,
    },
}

/// Decides who may connect.
pub struct Authenticator {
    scheme: Scheme,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Prepares what the configuration says.
    pub fn new(authorization: &Authorization) -> Result<Self, InvalidSubject> {
        let scheme = if !authorization.required() {
            Scheme::Open
        } else if let Some(token) = &authorization.token {
            Scheme::Token(Secret::new(token))
        } else {
            Self::users(authorization)?
        };
        Ok(Self { scheme })
    }

    fn users(authorization: &Authorization) -> Result<Scheme, InvalidSubject> {
        let mut by_name = HashMap::new();
        let mut add = |name: &str, password: &str, permissions| {
            by_name.insert(
                name.to_owned(),
                User {
                    secret: Secret::new(password),
                    login: Login {
                        user: name.to_owned(),
                        permissions,
                    },
                },
            );
        };
        for user in &authorization.users {
            let permissions = user
                .permissions
                .as_ref()
                .map(Permissions::new)
                .transpose()?;
            add(&user.name, &user.password, permissions.map(Arc::new));
        }
        if authorization.users.is_empty() {
            add(
                authorization.user.as_deref().unwrap_or_default(),
                authorization.password.as_deref().unwrap_or_default(),
                None,
            );
        }
        let without_credentials = authorization
            .no_auth_user
            .as_ref()
            .and_then(|name| by_name.get(name))
            .map(|user| user.login.clone());
        Ok(Scheme::Users {
            by_name,
            without_credentials,
        })
    }

    /// Whether a client must say who it is before it may do anything else.
    pub fn is_required(&self) -> bool {
        !matches!(self.scheme, Scheme::Open)
    }

    /// Whom a client without credentials is taken for, when it need not say who it is.
    pub fn without_credentials(&self) -> Option<Login> {
        match &self.scheme {
            Scheme::Users {
                without_credentials,
                ..
            } => without_credentials.clone(),
            _ => None,
        }
    }

    /// Checks what a client says about itself.
    pub fn check(&self, request: &ConnectRequest) -> Verdict {
        match &self.scheme {
            Scheme::Open => Verdict::Granted(Login {
                user: request.user.clone().unwrap_or_default(),
                permissions: None,
            }),
            Scheme::Token(secret) => match &request.auth_token {
                Some(token) => secret.check(token, Login::default()),
                None => Verdict::Refused,
            },
            Scheme::Users {
                by_name,
                without_credentials,
            } => {
                if let Some(login) = without_credentials
                    && !has_credentials(request)
                {
                    return Verdict::Granted(login.clone());
                }
                let name = request.user.as_deref().unwrap_or_default();
                let given = request.pass.as_deref().unwrap_or_default();
                match by_name.get(name) {
                    Some(user) => user.secret.check(given, user.login.clone()),
                    None => Verdict::Refused,
                }
            }
        }
    }
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
    use crate::config::options::User as ConfiguredUser;

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
            permissions: None,
        };
        let hash = bcrypt::hash("secret", 4).unwrap();
        let authenticator = Authenticator::new(&Authorization {
            users: vec![user("a", "a"), user("h", &hash)],
            no_auth_user: Some("a".into()),
            ..Default::default()
        })
        .unwrap();
        let check = |json| is_granted(authenticator.check(&request(json)));
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
        let authenticator = Authenticator::new(&Authorization {
            token: Some("t".into()),
            ..Default::default()
        })
        .unwrap();
        assert!(is_granted(
            authenticator.check(&request(r#"{"auth_token":"t"}"#))
        ));
        assert!(!is_granted(
            authenticator.check(&request(r#"{"user":"t"}"#))
        ));
        assert!(!is_granted(authenticator.check(&request("{}"))));
    }

    #[test]
    fn without_authorization_everybody_may_connect() {
        let authenticator = Authenticator::new(&Authorization::default()).unwrap();
        assert!(!authenticator.is_required());
        assert!(is_granted(authenticator.check(&request(r#"{"user":"x"}"#))));
    }
}
