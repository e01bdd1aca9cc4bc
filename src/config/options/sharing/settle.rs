//! Looks at the exports and imports of all accounts together.

use super::super::AccountOptions;
use super::super::report::Report;
use super::cycles::{Step, leads_back, of_services, of_streams};
use super::read::{ImportKind, Imported, ServiceParts, Shared};
use super::{
    Approval, Renaming, ResponseType, ServiceExport, ServiceImport, ServiceTerms, StreamExport,
    StreamImport, THRESHOLD_DEFAULT,
};
use crate::subject::transform::{Transform, TransformError, tokenized, untokenized};
use crate::subject::{has_wildcard, is_subset, is_valid_literal, is_valid_subject, tokens};

const IMPORT_FORMS_CYCLE: &str = "import forms a cycle";

/// Gives every account what was read of it: exports first, since imports are checked against them. The numbers are the accounts'.
pub(in super::super) fn settle(
    accounts: &mut [AccountOptions],
    exports: Vec<(usize, Shared<'_>)>,
    imports: Vec<(usize, Imported<'_>)>,
    report: &mut Report,
) {
    for (at, shared) in exports {
        let field = shared.field;
        let kind = match shared.service {
            Some(_) => "service",
            None => "stream",
        };
        for name in &shared.accounts {
            if index(accounts, name).is_none() {
                let reason = format!("{name:?} account not defined for {kind} export");
                field.invalid(report, reason);
            }
        }
        if let Some(account) = accounts.get_mut(at)
            && let Err(reason) = export(account, shared)
        {
            field.invalid(report, reason);
        }
    }
    for (at, imported) in imports {
        let field = imported.field;
        if let Err(reason) = import(accounts, at, imported) {
            field.invalid(report, reason);
        }
    }
}

fn index(accounts: &[AccountOptions], name: &str) -> Option<usize> {
    accounts.iter().position(|account| account.name == name)
}

fn export(account: &mut AccountOptions, shared: Shared<'_>) -> Result<(), String> {
    let Shared {
        subject,
        accounts,
        token_position,
        service,
        ..
    } = shared;
    let kind = if service.is_some() {
        "service"
    } else {
        "stream"
    };
    let failed =
        |reason: &str, subject: &str| format!("Error adding {kind} export {subject:?}: {reason}");
    if let Some(position) = token_position
        && tokens(subject.as_bytes()).nth(position - 1) != Some(b"*")
    {
        return Err(failed("invalid subject", &subject));
    }
    let Some(parts) = service else {
        let streams = &mut account.exports.streams;
        match streams.iter_mut().find(|known| known.subject == subject) {
            Some(known) => known.approval.add(accounts, token_position),
            None => streams.push(StreamExport {
                subject,
                approval: Approval {
                    accounts,
                    token_position,
                },
            }),
        }
        return Ok(());
    };
    let latency = parts.latency.clone();
    let response = add_service(account, &subject, accounts, token_position, parts);
    let Some(latency) = latency else {
        return Ok(());
    };
    let refused = |reason: &str| {
        let results = &latency.subject;
        Err(format!(
            "Error adding service latency sampling for {subject:?} on subject {results:?}: {reason}"
        ))
    };
    let services = &account.exports.services;
    let loops = best(
        services.iter().map(|known| &*known.subject),
        &latency.subject,
    )
    .is_some();
    if !is_valid_literal(&latency.subject) || !is_valid_subject(&latency.subject) || loops {
        return refused("invalid publish subject");
    }
    if response != ResponseType::Singleton {
        return refused("bad service response type");
    }
    Ok(())
}

/// Adds a service, or to one that the account has already.
fn add_service(
    account: &mut AccountOptions,
    subject: &str,
    accounts: Vec<String>,
    token_position: Option<usize>,
    parts: ServiceParts,
) -> ResponseType {
    let threshold = parts.threshold.unwrap_or(THRESHOLD_DEFAULT);
    let services = &mut account.exports.services;
    if let Some(known) = services.iter_mut().find(|known| known.subject == subject) {
        known.approval.add(accounts, token_position);
        known.terms.threshold = threshold;
        if parts.response != ResponseType::Singleton {
            known.terms.response = parts.response;
        }
        known.latency = parts.latency.or(known.latency.take());
        known.allow_trace |= parts.allow_trace;
        return known.terms.response;
    }
    services.push(ServiceExport {
        subject: subject.to_owned(),
        approval: Approval {
            accounts,
            token_position,
        },
        terms: ServiceTerms {
            response: parts.response,
            threshold,
        },
        latency: parts.latency,
        allow_trace: parts.allow_trace,
    });
    parts.response
}

impl Approval {
    fn add(&mut self, accounts: Vec<String>, token_position: Option<usize>) {
        for name in accounts {
            if !self.accounts.contains(&name) {
                self.accounts.push(name);
            }
        }
        self.token_position = token_position.or(self.token_position);
    }

    /// Whether this account may import this subject of an export.
    fn allows(&self, account: &str, subject: &str, exported: &str) -> bool {
        match self.token_position {
            // The exported pattern itself names nobody.
            Some(_) if subject == exported => false,
            Some(position) => {
                tokens(subject.as_bytes()).nth(position - 1) == Some(account.as_bytes())
            }
            None => self.accounts.is_empty() || self.accounts.iter().any(|name| name == account),
        }
    }
}

/// The pattern that says most about a subject: it itself, or of those that cover it the narrowest.
fn best<'a>(patterns: impl Iterator<Item = &'a str>, subject: &str) -> Option<usize> {
    let mut best: Option<(usize, &str)> = None;
    for (at, pattern) in patterns.enumerate() {
        let is_better = best.is_none_or(|(_, known)| is_subset(pattern, known));
        if (pattern == subject || is_subset(subject, pattern)) && is_better {
            best = Some((at, pattern));
        }
    }
    best.map(|(at, _)| at)
}

fn import(
    accounts: &mut [AccountOptions],
    at: usize,
    imported: Imported<'_>,
) -> Result<(), String> {
    let Imported {
        account,
        subject,
        kind,
        ..
    } = imported;
    let what = match kind {
        ImportKind::Stream { .. } => "stream",
        ImportKind::Service { .. } => "service",
    };
    let Some(importer) = accounts.get(at) else {
        return Ok(());
    };
    let Some(exporter) = accounts.iter().find(|other| other.name == account) else {
        return Err(format!("{account:?} account not defined for {what} import"));
    };
    let made = match kind {
        ImportKind::Stream {
            prefix,
            to,
            allow_trace,
        } => stream(accounts, importer, exporter, &subject, prefix, to).map(|made| {
            Made::Stream(StreamImport {
                allow_trace,
                ..made
            })
        }),
        ImportKind::Service { to, share } => service(accounts, importer, exporter, &subject, to)
            .map(|made| Made::Service(ServiceImport { share, ..made })),
    };
    let made =
        made.map_err(|reason| format!("Error adding {what} import {subject:?}: {reason}"))?;
    if let Some(importer) = accounts.get_mut(at) {
        match made {
            Made::Stream(made) => importer.imports.streams.push(made),
            Made::Service(made) => importer.imports.services.push(made),
        }
    }
    Ok(())
}

/// An import that is sound.
enum Made {
    Stream(StreamImport),
    Service(ServiceImport),
}

fn stream(
    accounts: &[AccountOptions],
    importer: &AccountOptions,
    exporter: &AccountOptions,
    subject: &str,
    prefix: Option<String>,
    to: Option<String>,
) -> Result<StreamImport, String> {
    let exports = &exporter.exports.streams;
    let export = best(exports.iter().map(|export| &*export.subject), subject);
    let is_allowed = export
        .and_then(|export| exports.get(export))
        .is_some_and(|export| {
            let approval = &export.approval;
            approval.allows(&importer.name, subject, &export.subject)
        });
    if !is_valid_subject(subject) || !is_allowed {
        return Err("stream import not authorized".into());
    }
    let local = match (prefix, to) {
        (Some(prefix), _) => {
            if !is_valid_literal(prefix.strip_suffix('.').unwrap_or(&prefix)) {
                return Err("stream import prefix can not contain wildcard tokens".into());
            }
            format!("{}.{subject}", prefix.strip_suffix('.').unwrap_or(&prefix))
        }
        (None, Some(to)) => to,
        (None, None) => subject.to_owned(),
    };
    let refused = |error: TransformError| {
        format!(
            "failed to create mapping transform for stream import subject from {subject:?} to {local:?}: {error}"
        )
    };
    let (shown, renaming, back) = if local == subject {
        (local.clone(), Renaming::Same, Renaming::Same)
    } else if has_wildcard(subject) {
        let there = Transform::reversible(subject, &tokenized(&local)).map_err(refused)?;
        let back = there.reversed().map_err(refused)?;
        let (shown, _) = untokenized(&local);
        (shown, by(there), by(back))
    } else if has_wildcard(&local) || !is_valid_subject(&local) {
        return Err(refused(TransformError::BadSubject));
    } else {
        let back = Renaming::To(subject.to_owned());
        (local.clone(), Renaming::To(local.clone()), back)
    };
    let account = &exporter.name;
    let step = Step {
        local: &shown,
        subject,
        account,
    };
    if leads_back(accounts, &importer.name, step, of_streams) {
        return Err(IMPORT_FORMS_CYCLE.into());
    }
    let own = &importer.imports.streams;
    if own
        .iter()
        .any(|known| known.account == *account && known.subject == subject)
    {
        return Err("stream import already exists".into());
    }
    Ok(StreamImport {
        account: account.clone(),
        subject: subject.to_owned(),
        local: shown,
        renaming,
        back,
        allow_trace: false,
    })
}

fn service(
    accounts: &[AccountOptions],
    importer: &AccountOptions,
    exporter: &AccountOptions,
    subject: &str,
    to: Option<String>,
) -> Result<ServiceImport, String> {
    let local = to.unwrap_or_else(|| subject.to_owned());
    if !is_valid_subject(subject) || !is_valid_subject(&local) {
        return Err("invalid subject".into());
    }
    let exports = &exporter.exports.services;
    let export = best(exports.iter().map(|export| &*export.subject), subject);
    let export = export
        .and_then(|export| exports.get(export))
        .filter(|export| {
            let approval = &export.approval;
            approval.allows(&importer.name, subject, &export.subject)
        });
    let Some(export) = export else {
        return Err("service import not authorized".into());
    };
    let refused = |error: TransformError| {
        format!(
            "failed to create mapping transform for service import subject from {local:?} to {subject:?}: {error}"
        )
    };
    let (shown, renaming) = if local == subject {
        (local.clone(), Renaming::Same)
    } else if has_wildcard(subject) {
        // The file may name the wildcards on our side by their number, which turns the transform round.
        let back = Transform::reversible(subject, &tokenized(&local)).map_err(refused)?;
        let there = back.reversed().map_err(refused)?;
        let (shown, _) = untokenized(&local);
        (shown, by(there))
    } else {
        (local.clone(), Renaming::To(subject.to_owned()))
    };
    let step = Step {
        local: &shown,
        subject,
        account: &exporter.name,
    };
    if leads_back(accounts, &importer.name, step, of_services) {
        return Err(IMPORT_FORMS_CYCLE.into());
    }
    Ok(ServiceImport {
        account: exporter.name.clone(),
        subject: subject.to_owned(),
        local: shown,
        renaming,
        share: false,
        terms: export.terms,
        latency: export.latency.clone(),
        allow_trace: export.allow_trace,
    })
}

fn by(transform: Transform) -> Renaming {
    Renaming::By(Box::new(transform))
}
