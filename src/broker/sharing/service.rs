//! Services that an account imports: subscriptions of its index that lead into the account that answers.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;

use super::request_info::ServerNames;
use crate::broker::Broker;
use crate::broker::account::Account;
use crate::broker::subscription::{Subscription, Target};
use crate::config::options::sharing::ServiceImport as Options;

/// An import, with the account that it is from.
pub struct ServiceImport {
    pub(in crate::broker) exporter: Arc<Account>,
    pub(in crate::broker) options: Options,
    /// Whether it is from the account of the server itself.
    is_of_system: bool,
    /// The broker's.
    names: Arc<ArcSwap<ServerNames>>,
}

impl ServiceImport {
    /// What the configuration says of it.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether whoever answers is told where those are who ask. The account of the server itself always is.
    pub(in crate::broker) fn tells_place(&self) -> bool {
        self.options.share || self.is_of_system
    }

    /// What this server is called now.
    pub(in crate::broker) fn names(&self) -> Guard<Arc<ServerNames>> {
        self.names.load()
    }
}

impl Account {
    /// Imports these services, and no others. What stays as it was goes on undisturbed.
    pub(super) fn import_services(self: &Arc<Self>, wanted: &[Options], broker: &Broker) {
        let mut services = self.sharing.services.lock();
        let mut before = std::mem::take(&mut *services);
        let mut new = Vec::new();
        for options in wanted {
            let Some(exporter) = broker.account(&options.account) else {
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
            .map(|(exporter, options)| self.import_service(exporter, options, broker));
        services.extend(new);
    }

    fn import_service(
        self: &Arc<Self>,
        exporter: Arc<Account>,
        options: &Options,
        broker: &Broker,
    ) -> Arc<Subscription> {
        let import = ServiceImport {
            is_of_system: Arc::ptr_eq(&exporter, broker.system()),
            exporter,
            options: options.clone(),
            names: Arc::clone(&broker.names),
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
