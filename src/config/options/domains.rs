//! JetStream domains: the subjects under which an account also reaches the JetStream of a domain.
//!
//! They are mappings beside those of the file, of which the file's own come first.

use super::super::value::Value;
use super::report::{Field, Report, in_file_order};
use super::{AccountOptions, Options, SYSTEM_ACCOUNT_DEFAULT};
use crate::subject::transform::{Mapping, Mappings};
use crate::subject::{is_valid_subject, subject_matches};

/// The global account, which the file does not name.
const GLOBAL: &str = "$G";

/// What stands behind `$JS.<domain>.API.`, and what that is without a domain. Buckets are streams, but the subjects of what is in them are not
/// the API's.
const SUBJECTS: [(&str, &str); 9] = [
    ("INFO", "$JS.API.INFO"),
    ("STREAM.>", "$JS.API.STREAM.>"),
    ("CONSUMER.>", "$JS.API.CONSUMER.>"),
    ("DIRECT.>", "$JS.API.DIRECT.>"),
    ("META.>", "$JS.API.META.>"),
    ("SERVER.>", "$JS.API.SERVER.>"),
    ("ACCOUNT.>", "$JS.API.ACCOUNT.>"),
    ("$KV.>", "$KV.>"),
    ("$OBJ.>", "$OBJ.>"),
];

/// What clients who name no domain are taken to mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultDomain {
    /// Those of this account.
    pub account: String,
    /// This one; empty for none.
    pub domain: String,
}

/// Reads `default_js_domain`: domains by the names of accounts.
pub(super) fn read_defaults(field: &Field<'_>, report: &mut Report) -> Vec<DefaultDomain> {
    let Some(map) = field.map(report) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in in_file_order(map) {
        if entry.node.used_as_variable && !matches!(entry.value(), Value::String(_)) {
            continue;
        }
        if let Some(domain) = entry.string(report) {
            found.push(DefaultDomain {
                account: entry.name.to_owned(),
                domain,
            });
        }
    }
    found
}

/// Whether domains are sound and belong to accounts that can have them.
pub(super) fn check(options: &Options) -> Result<(), String> {
    for DefaultDomain { account, domain } in &options.default_domains {
        let reserved = account == GLOBAL || account == SYSTEM_ACCOUNT_DEFAULT;
        let configured = options.accounts.iter().find(|known| known.name == *account);
        match configured {
            None if !reserved => {
                return Err(format!(
                    "in non operator mode, `default_js_domain` references non existing account {account:?}"
                ));
            }
            Some(known) if known.jetstream.is_some() && !domain.is_empty() => {
                return Err(format!(
                    "default_js_domain contains account name {account:?} with enabled JetStream"
                ));
            }
            _ => {}
        }
        if account == options.system_account() {
            return Err(format!(
                "system account {account:?} can not be in default_js_domain"
            ));
        }
        if !domain.is_empty() && !is_valid_subject(everything(domain)) {
            return Err(format!(
                "default_js_domain contains account {account:?} with invalid domain name {domain:?}"
            ));
        }
    }
    let domain = &options.jetstream.domain;
    if domain.is_empty() {
        return Ok(());
    }
    let subject = everything(domain);
    if !is_valid_subject(&subject) {
        return Err(format!(
            "invalid domain name: derived {subject:?} is not a valid subject"
        ));
    }
    if domain.contains(|c: char| ".*>".contains(c)) {
        return Err("invalid domain name: may not contain ., * or >".into());
    }
    Ok(())
}

fn everything(domain: &str) -> String {
    format!("$JS.{domain}.API.>")
}

impl Options {
    /// Where else what clients of an account publish goes: by the file, by the server's domain, and by the domain that the account is to use.
    /// `None` is the global account.
    pub fn mappings_of(&self, account: Option<&AccountOptions>) -> Mappings {
        let mut mappings = match account {
            Some(account) => account.mappings.clone(),
            None => self.mappings.clone(),
        };
        let name = account.map_or(GLOBAL, |account| account.name.as_str());
        if name == self.system_account() {
            return mappings;
        }
        let has_jetstream = account.is_some_and(|account| account.jetstream.is_some());
        let takes_api = account.is_some_and(AccountOptions::takes_jetstream);
        let of_own = self
            .jetstream()
            .map(|jetstream| jetstream.domain.as_str())
            .filter(|domain| !domain.is_empty())
            // Who takes JetStream from another account does not ask this one.
            .filter(|_| has_jetstream || !takes_api);
        if let Some(domain) = of_own {
            for (suffix, plain) in SUBJECTS {
                add(&mut mappings, &format!("$JS.{domain}.API.{suffix}"), plain);
            }
        }
        let mut defaults = self.default_domains.iter();
        let default =
            defaults.rfind(|it| it.account == name && !it.domain.is_empty() && !has_jetstream);
        if let Some(DefaultDomain { domain, .. }) = default {
            for (suffix, plain) in SUBJECTS {
                add(&mut mappings, plain, &format!("$JS.{domain}.API.{suffix}"));
            }
        }
        mappings
    }
}

/// What the file says of a subject stays.
fn add(mappings: &mut Mappings, source: &str, destination: &str) {
    if mappings.iter().all(|known| known.source() != source)
        && let Ok(mapping) = Mapping::simple(source, destination)
    {
        mappings.add(mapping);
    }
}

impl AccountOptions {
    /// Whether questions to the API go to another account.
    pub fn takes_jetstream(&self) -> bool {
        let mut services = self.imports.services.iter();
        services.any(|service| subject_matches("$JS.API.INFO", &service.local))
    }
}
