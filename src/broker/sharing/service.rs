//! Services that an account imports: subscriptions of its index that lead into the account that answers.

use std::sync::Arc;

use bytes::Bytes;

use super::request_info::ServerNames;
use crate::broker::account::Account;
use crate::broker::subscription::{Subscription, Target};
use crate::config::options::sharing::ServiceImport as Options;

/// An import, with the account that it is from.
pub struct ServiceImport {
    pub(in crate::broker) exporter: Arc<Account>,
    pub(in crate::broker) options: Options,
    pub(in crate::broker) names: ServerNames,
}

impl ServiceImport {
    /// What the configuration says of it.
    pub fn options(&self) -> &Options {
        &self.options
    }
}

impl Account {
    /// Imports these services, and no others. What stays as it was goes on undisturbed.
    pub(super) fn import_services(
        self: &Arc<Self>,
        wanted: &[Options],
        names: &ServerNames,
        find: impl Fn(&str) -> Option<Arc<Account>>,
    ) {
        let mut services = self.sharing.services.lock();
        let mut before = std::mem::take(&mut *services);
        let mut new = Vec::new();
        for options in wanted {
            let Some(exporter) = find(&options.account) else {
                continue;
            };
            let known = before.iter().position(|known| {
                matches!(&known.target, Target::Service(import)
                    if import.options == *options && Arc::ptr_eq(&import.exporter, &exporter))
            });
            match known {
                Some(at) => services.push(before.swap_remove(at)),
                None => new.push((exporter, options)),
            }
        }
        // Others first: where two services change places, no question goes to both.
        self.remove_alone(&before);
        let new = new
            .into_iter()
            .map(|(exporter, options)| self.import_service(exporter, options, names));
        services.extend(new);
    }

    fn import_service(
        self: &Arc<Self>,
        exporter: Arc<Account>,
        options: &Options,
        names: &ServerNames,
    ) -> Arc<Subscription> {
        let import = ServiceImport {
            exporter,
            options: options.clone(),
            names: names.clone(),
        };
        // Every server imports for itself: what comes from another one has been asked already.
        let subscription = Subscription::new(
            Bytes::copy_from_slice(options.local.as_bytes()),
            None,
            Target::Service(Arc::new(import)),
            None,
        );
        let subscription = Arc::new(subscription.only_here());
        self.insert_exit(&subscription);
        subscription
    }
}
