//! Whether imports lead back to the account that imports.
//!
//! An import is a step from a subject of one account to a subject of another; a step follows another where what the first arrives at may be
//! what the second begins with. Each step is taken once, so that the search takes no longer than all pairs of imports.

use std::collections::HashSet;

use super::super::AccountOptions;
use crate::subject::overlap;

/// An import as a step: what it is called here, what it is called there, and the account that is there.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) local: &'a str,
    pub(super) subject: &'a str,
    pub(super) account: &'a str,
}

/// The steps that services are.
pub(super) fn of_services(account: &AccountOptions) -> Vec<Step<'_>> {
    let services = account.imports.services.iter();
    let step = services.map(|import| Step {
        local: &import.local,
        subject: &import.subject,
        account: &import.account,
    });
    step.collect()
}

/// The steps that streams are: against the way of their messages, from those who listen to those who are listened to.
pub(super) fn of_streams(account: &AccountOptions) -> Vec<Step<'_>> {
    let streams = account.imports.streams.iter();
    let step = streams.map(|import| Step {
        local: &import.local,
        subject: &import.subject,
        account: &import.account,
    });
    step.collect()
}

/// Whether a new step of the account `start` comes back to where it began, by steps that the accounts have already.
pub(super) fn leads_back<'a>(
    accounts: &'a [AccountOptions],
    start: &str,
    new: Step<'a>,
    steps: impl Fn(&'a AccountOptions) -> Vec<Step<'a>>,
) -> bool {
    let mut taken: HashSet<(&str, usize)> = HashSet::new();
    let mut open = vec![new];
    while let Some(last) = open.pop() {
        if last.account == start && overlap(last.subject, new.local) {
            return true;
        }
        let account = accounts.iter().find(|account| account.name == last.account);
        let next = account.map(&steps).unwrap_or_default();
        for (number, step) in next.into_iter().enumerate() {
            if overlap(step.local, last.subject) && taken.insert((last.account, number)) {
                open.push(step);
            }
        }
    }
    false
}
