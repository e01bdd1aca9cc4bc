//! Creating, changing and removing streams.

use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::catalog::{CatalogEntry, Listed};
use super::log::Letter;
use super::meta::StreamMeta;
use super::{Activities, Activity, Catalog, Engine, Form, Persistent, StreamId, remove_tree};
use crate::journal::{Frame, FrameKind, JournalError, Owner};

/// The longest account or stream name.
const NAME_BYTES_MAX: usize = u16::MAX as usize;

/// Why a stream was not created.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CreateError {
    /// The account has a stream of that name.
    #[error("stream exists already")]
    Exists(StreamId),
    /// A name is longer than the catalog takes.
    #[error("name of {0} bytes is too long")]
    NameTooLong(usize),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why a stream was not removed or changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RemoveError {
    /// There is no such stream.
    #[error("no such stream")]
    Unknown,
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl<S: Persistent> Engine<S> {
    /// Creates a stream with an empty store. Durable when it returns.
    pub fn create(
        &self,
        account: &str,
        name: &str,
        options: S::Options,
    ) -> Result<(StreamId, S), CreateError> {
        self.create_as(account, name, options, Form::Plain)
    }

    /// The same, for a stream whose log is of that form from the start.
    pub fn create_as(
        &self,
        account: &str,
        name: &str,
        options: S::Options,
        form: Form,
    ) -> Result<(StreamId, S), CreateError> {
        let longest = account.len().max(name.len());
        if longest > NAME_BYTES_MAX {
            return Err(CreateError::NameTooLong(longest));
        }
        let mut catalog = self.catalog.lock();
        if let Some(id) = catalog.find(account, name) {
            return Err(CreateError::Exists(id));
        }
        let id = StreamId(catalog.next_stream);
        let listed = Listed {
            account: account.to_owned(),
            name: name.to_owned(),
            options: options.clone(),
            form,
        };
        self.change_catalog(&mut catalog, CatalogEntry::Created(id, listed))?;
        drop(catalog);
        self.carry_if_wanted();
        let meta = StreamMeta {
            id,
            account: account.to_owned(),
            name: name.to_owned(),
            options: S::encode_options(&options),
        };
        let mut activity = Activity {
            form,
            ..Activity::default()
        };
        let place = self.place_of(meta, &activity.removed);
        activity.place = Some(place.clone());
        self.activities.lock().streams.insert(id, activity);
        Ok((id, S::create(place, options)))
    }

    /// Replaces a stream's options in the catalog. Durable when it returns. The store itself is told by whoever owns it.
    pub fn change(&self, id: StreamId, options: S::Options) -> Result<(), RemoveError> {
        let mut catalog = self.catalog.lock();
        if !catalog.streams.contains_key(&id) {
            return Err(RemoveError::Unknown);
        }
        self.change_catalog(&mut catalog, CatalogEntry::Changed(id, options))?;
        drop(catalog);
        self.carry_if_wanted();
        Ok(())
    }

    /// Gives a stream another name in the catalog, so that its own is free. Durable when it returns.
    pub fn rename(&self, id: StreamId, name: &str) -> Result<(), RemoveError> {
        let mut catalog = self.catalog.lock();
        let Some(listed) = catalog.streams.get(&id) else {
            return Err(RemoveError::Unknown);
        };
        let renamed = Listed {
            account: listed.account.clone(),
            name: name.to_owned(),
            options: listed.options.clone(),
            form: listed.form,
        };
        self.change_catalog(&mut catalog, CatalogEntry::Created(id, renamed))?;
        drop(catalog);
        self.carry_if_wanted();
        Ok(())
    }

    /// Gives a stream's log another form. Durable when it returns. Before it is called a checkpoint has to be durable that covers every entry of the log in the old form,
    /// and nothing more is submitted in that form: from then on its entries are passed over.
    pub fn reform(&self, id: StreamId, form: Form) -> Result<(), RemoveError> {
        let mut catalog = self.catalog.lock();
        let Some(listed) = catalog.streams.get(&id) else {
            return Err(RemoveError::Unknown);
        };
        let before = listed.form;
        self.change_catalog(&mut catalog, CatalogEntry::Reformed(id, form))?;
        drop(catalog);
        self.carry_if_wanted();
        if let Some(activity) = self.activities.lock().streams.get_mut(&id) {
            activity.form = form;
        }
        // Another replica has voted for nobody yet.
        if before.is_replicated() && before != form {
            for mark in [FrameKind::Vote, FrameKind::Committed, FrameKind::Purged] {
                self.log.post(Letter::DropMark(id.owner(), mark));
            }
        }
        Ok(())
    }

    /// What a stream's log consists of.
    pub fn form(&self, id: StreamId) -> Option<Form> {
        let catalog = self.catalog.lock();
        catalog.streams.get(&id).map(|listed| listed.form)
    }

    /// Removes a stream. Durable when it returns; its files go in the background. Whoever owns its store submits nothing more for it.
    pub fn remove(&self, id: StreamId) -> Result<(), RemoveError> {
        let mut catalog = self.catalog.lock();
        if !catalog.streams.contains_key(&id) {
            return Err(RemoveError::Unknown);
        }
        self.change_catalog(&mut catalog, CatalogEntry::Removed(id))?;
        drop(catalog);
        self.carry_if_wanted();
        self.log.post(Letter::Forget(id.owner()));
        let mut activities = self.activities.lock();
        let activity = activities.streams.entry(id).or_default();
        let carried_bytes = std::mem::take(&mut activity.carried_bytes);
        activity.removed.store(true, Ordering::SeqCst);
        let busy = activity.checkpointing;
        activities.carried_bytes -= carried_bytes;
        // Otherwise the checkpoint that is being written deletes the directory when it has ended.
        if !busy {
            self.delete_in_background(activities, id);
        }
        Ok(())
    }

    /// Deletes the directory of a removed stream, and then takes it off the catalog's list of those.
    pub(super) fn delete_in_background(
        &self,
        mut activities: MutexGuard<'_, Activities>,
        id: StreamId,
    ) {
        activities.streams.remove(&id);
        let Some(engine) = self.this.upgrade() else {
            return;
        };
        activities.running += 1;
        drop(activities);
        self.background.spawn(Box::new(move || {
            engine.delete(id);
            engine.end_job();
        }));
    }

    fn delete(&self, id: StreamId) {
        let streams = self.streams_directory();
        let directory = streams.join(id.directory_name());
        let removed = remove_tree(self.disk.as_ref(), &directory)
            .and_then(|()| self.disk.sync_directory(&streams));
        // What is left is tried again at the next start.
        if let Err(error) = removed {
            tracing::warn!(stream = %id, %error, "the files of a removed stream are left for the next start");
            return;
        }
        // A frame that follows the removal would bring its owner back to the journal's books.
        self.log.post(Letter::Forget(id.owner()));
        let mut catalog = self.catalog.lock();
        if let Err(error) = self.change_catalog(&mut catalog, CatalogEntry::Gone(id)) {
            tracing::warn!(stream = %id, %error, "the removal of a stream could not be noted");
        }
        drop(catalog);
        self.carry_if_wanted();
    }

    /// Appends a change to the catalog's log, waits until it is durable, and applies it.
    fn change_catalog(
        &self,
        catalog: &mut Catalog<S::Options>,
        entry: CatalogEntry<S::Options>,
    ) -> Result<(), JournalError> {
        let index = catalog.index + 1;
        self.log.append(Frame {
            owner: Owner::CATALOG,
            index,
            kind: FrameKind::Entry,
            payload: entry.encode::<S>().into(),
        })?;
        catalog.apply(index, entry);
        Ok(())
    }

    /// Puts the whole catalog into the journal, so that its entries hold back no segment.
    pub(super) fn carry_catalog_in_background(&self) {
        self.carry_wanted.store(true, Ordering::SeqCst);
        let Some(engine) = self.this.upgrade() else {
            return;
        };
        self.background
            .spawn(Box::new(move || engine.carry_if_wanted()));
    }

    /// Carries the catalog if that is wanted. When the catalog is being changed, whoever changes it does this afterwards.
    fn carry_if_wanted(&self) {
        if !self.carry_wanted.load(Ordering::SeqCst) {
            return;
        }
        let Some(catalog) = self.catalog.try_lock() else {
            return;
        };
        self.carry_wanted.store(false, Ordering::SeqCst);
        if let Err(error) = self.carry(&catalog) {
            tracing::warn!(%error, "the catalog could not be carried");
        }
    }

    /// Puts the whole catalog into the journal. Durable when it returns.
    pub fn carry_catalog(&self) -> Result<(), JournalError> {
        self.carry(&self.catalog.lock())
    }

    fn carry(&self, catalog: &Catalog<S::Options>) -> Result<(), JournalError> {
        let index = catalog.index;
        self.log.append(Frame {
            owner: Owner::CATALOG,
            index,
            kind: FrameKind::Carry,
            payload: catalog.encode::<S>().into(),
        })?;
        self.log.post(Letter::Release(Owner::CATALOG, index));
        Ok(())
    }
}
