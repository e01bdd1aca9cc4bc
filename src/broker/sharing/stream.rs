//! Streams that an account imports: every subscription there that may hear one has a shadow in the account that exports it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::broker::account::Account;
use crate::broker::subscription::{Subscription, Target};
use crate::config::options::sharing::StreamImport as Options;
use crate::subject::intersection;

/// An import, with the account that it is from.
struct StreamImport {
    exporter: Arc<Account>,
    options: Options,
}

/// The second subscription of somebody who listens to an imported stream.
pub struct Shadow {
    import: Arc<StreamImport>,
    /// The account that imports.
    pub(in crate::broker) importer: Arc<Account>,
    /// The subscription there.
    pub(in crate::broker) of: Arc<Subscription>,
}

impl Shadow {
    /// The subscription that hears what this one matches.
    pub fn of(&self) -> &Arc<Subscription> {
        &self.of
    }

    /// Whether traced messages are followed into the importing account.
    pub(in crate::broker) fn allows_trace(&self) -> bool {
        self.import.options.allow_trace
    }

    /// Writes what a subject of the exporting account is in the importing one.
    pub(in crate::broker) fn rename(&self, subject: &[u8], out: &mut Vec<u8>) -> bool {
        self.import.options.renaming.apply(subject, out)
    }
}

/// The imports of an account, and the shadows of its subscriptions by their numbers.
#[derive(Default)]
pub(super) struct Streams {
    imports: Vec<Arc<StreamImport>>,
    shadows: HashMap<u64, Vec<Arc<Subscription>>>,
}

impl StreamImport {
    /// The shadow of a subscription, if it may hear anything of this.
    fn shadow(
        self: &Arc<Self>,
        importer: &Arc<Account>,
        of: &Arc<Subscription>,
    ) -> Option<Arc<Subscription>> {
        let heard = intersection(&of.subject, &self.options.local)?;
        let mut theirs = Vec::new();
        if heard == self.options.local.as_bytes() {
            theirs.extend_from_slice(self.options.subject.as_bytes());
        } else if !self.options.back.apply(&heard, &mut theirs) {
            return None;
        }
        let shadow = Shadow {
            import: Arc::clone(self),
            importer: Arc::clone(importer),
            of: Arc::clone(of),
        };
        let subscription = Subscription::new(
            Bytes::from(theirs),
            of.queue.clone(),
            Target::Shadow(Box::new(shadow)),
            None,
        );
        Some(Arc::new(match of.is_only_here() {
            true => subscription.only_here(),
            false => subscription,
        }))
    }
}

impl Streams {
    /// Adds the shadows that a subscription lacks.
    fn cast(&mut self, importer: &Arc<Account>, of: &Arc<Subscription>) {
        let mut cast = self.shadows.remove(&of.id).unwrap_or_default();
        for import in &self.imports {
            let is_there = cast.iter().any(|shadow| is_of(shadow, import));
            if is_there {
                continue;
            }
            if let Some(shadow) = import.shadow(importer, of)
                && import.exporter.insert_alone(&shadow).is_ok()
            {
                cast.push(shadow);
            }
        }
        if !cast.is_empty() {
            self.shadows.insert(of.id, cast);
        }
    }
}

fn is_of(shadow: &Subscription, import: &Arc<StreamImport>) -> bool {
    matches!(&shadow.target, Target::Shadow(shadow) if Arc::ptr_eq(&shadow.import, import))
}

fn end(shadow: &Arc<Subscription>) {
    if let Target::Shadow(inner) = &shadow.target {
        inner
            .import
            .exporter
            .remove_alone(std::slice::from_ref(shadow));
    }
}

/// Whether it may hear what others export: the server's own ears hear their own account only.
fn casts_shadows(subscription: &Subscription) -> bool {
    match &subscription.target {
        Target::Client { .. } => true,
        Target::Internal { .. } => {
            let subject = &*subscription.subject;
            !subject.starts_with(b"$JS.API.") && !subject.starts_with(b"$SYS.")
        }
        Target::Route { .. } | Target::Shadow(_) | Target::Service(_) | Target::Replies => false,
    }
}

impl Account {
    /// Lets a new subscription hear imported streams.
    pub(in crate::broker) fn cast_shadows(self: &Arc<Self>, of: &Arc<Subscription>) {
        if !self.sharing.imports_streams.load(Ordering::Acquire) || !casts_shadows(of) {
            return;
        }
        let mut streams = self.sharing.streams.lock();
        // Who ends a subscription closes it before taking the lock, and removes what is there then.
        if !of.is_closed() {
            streams.cast(self, of);
        }
    }

    /// Ends the shadows of subscriptions that have ended.
    pub(in crate::broker) fn lift_shadows(&self, ended: &[Arc<Subscription>]) {
        if !self.sharing.imports_streams.load(Ordering::Acquire) {
            return;
        }
        let mut streams = self.sharing.streams.lock();
        let lifted = ended.iter().filter_map(|of| streams.shadows.remove(&of.id));
        let lifted: Vec<_> = lifted.flatten().collect();
        drop(streams);
        for shadow in &lifted {
            end(shadow);
        }
    }

    /// Imports these streams, and no others. What stays as it was goes on undisturbed.
    pub(super) fn import_streams(
        self: &Arc<Self>,
        wanted: &[Options],
        find: impl Fn(&str) -> Option<Arc<Account>>,
    ) {
        let had_none = !self.sharing.imports_streams.load(Ordering::Acquire);
        if wanted.is_empty() && had_none {
            return;
        }
        self.sharing.imports_streams.store(true, Ordering::Release);
        let mut streams = self.sharing.streams.lock();
        let imports: Vec<Arc<StreamImport>> = wanted
            .iter()
            .filter_map(|options| {
                let exporter = find(&options.account)?;
                let known = streams.imports.iter().find(|known| {
                    known.options == *options && Arc::ptr_eq(&known.exporter, &exporter)
                });
                Some(known.map_or_else(
                    || {
                        Arc::new(StreamImport {
                            exporter: Arc::clone(&exporter),
                            options: options.clone(),
                        })
                    },
                    Arc::clone,
                ))
            })
            .collect();
        streams.imports = imports.clone();
        // Others first: who changed from one to the other never hears both.
        streams.shadows.retain(|_, cast| {
            cast.retain(|shadow| {
                let stays = imports.iter().any(|import| is_of(shadow, import));
                if !stays {
                    end(shadow);
                }
                stays
            });
            !cast.is_empty()
        });
        for subscription in self.subscriptions() {
            if casts_shadows(&subscription) && !subscription.is_closed() {
                streams.cast(self, &subscription);
            }
        }
    }
}
