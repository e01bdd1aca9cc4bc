//! A state machine that remembers the commands in order, and what it was told to be.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use raft::group::{
    Applied, Checkpoint, Content, GroupNumber, Machine, MachineFailed, Manifest, ManifestWork,
    Role, Work,
};

/// Where stores find each other, to fetch a state that a manifest names.
#[derive(Default)]
pub struct Stores(Mutex<BTreeMap<(String, GroupNumber), Arc<Store>>>);

pub struct Store {
    server: String,
    group: GroupNumber,
    stores: Arc<Stores>,
    state: Mutex<State>,
    durable: Durable,
}

/// What is durable of the states of a server.
pub type Durable = Arc<Mutex<BTreeMap<GroupNumber, State>>>;

/// What a store is, and what its last checkpoint is.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub checkpoint: Checkpoint,
    pub commands: Vec<Bytes>,
    pub roles: Vec<Role>,
    /// Entries that came although they were applied already.
    pub repeated: u64,
    /// States that were fetched.
    pub installed: u64,
    /// Refuses everything.
    pub broken: bool,
}

impl State {
    /// What a checkpoint makes durable of it.
    pub fn kept(&self) -> Self {
        Self {
            checkpoint: self.checkpoint.clone(),
            commands: self.commands.clone(),
            ..Self::default()
        }
    }
}

impl Store {
    pub fn new(
        server: &str,
        group: GroupNumber,
        stores: &Arc<Stores>,
        state: State,
        durable: &Durable,
    ) -> Arc<Self> {
        let store = Arc::new(Self {
            server: server.to_owned(),
            group,
            stores: Arc::clone(stores),
            state: Mutex::new(state),
            durable: Arc::clone(durable),
        });
        let key = (server.to_owned(), group);
        stores.0.lock().insert(key, Arc::clone(&store));
        store
    }

    pub fn state(&self) -> State {
        self.state.lock().clone()
    }

    pub fn commands(&self) -> Vec<Bytes> {
        self.state.lock().commands.clone()
    }

    pub fn count(&self) -> usize {
        self.state.lock().commands.len()
    }

    pub fn applied_index(&self) -> u64 {
        self.state.lock().checkpoint.at.index
    }

    pub fn role(&self) -> Option<Role> {
        self.state.lock().roles.last().cloned()
    }

    pub fn leads(&self) -> bool {
        matches!(self.role(), Some(Role::Leader { .. }))
    }

    pub fn break_down(&self) {
        self.state.lock().broken = true;
    }

    fn take(state: &mut State, applied: Applied) -> Result<(), MachineFailed> {
        let last = state.checkpoint.at.index;
        if applied.at.index <= last {
            state.repeated += 1;
            return Ok(());
        }
        if applied.at.index != last + 1 {
            let index = applied.at.index;
            return Err(MachineFailed(format!("{index} comes after {last}")));
        }
        state.checkpoint.advance(&applied);
        if let Content::Command(command) = applied.content {
            state.commands.push(command);
        }
        Ok(())
    }
}

impl Machine for Store {
    fn apply(&self, batch: Vec<Applied>) -> Work<'_> {
        Box::pin(async move {
            let mut state = self.state.lock();
            if state.broken {
                return Err(MachineFailed("broken for a test".to_owned()));
            }
            batch
                .into_iter()
                .try_for_each(|applied| Self::take(&mut state, applied))
        })
    }

    fn role(&self, role: Role) {
        self.state.lock().roles.push(role);
    }

    fn manifest(&self) -> ManifestWork<'_> {
        Box::pin(async move {
            let checkpoint = self.state.lock().checkpoint.clone();
            let content = Bytes::from_static(b"everything");
            Ok(Manifest {
                checkpoint,
                content,
            })
        })
    }

    fn install(&self, manifest: Manifest, from: &str) -> Work<'_> {
        let key = (from.to_owned(), self.group);
        Box::pin(async move {
            assert_eq!(&manifest.content[..], b"everything");
            // Not at once: it is fetched.
            tokio::task::yield_now().await;
            let source = self.stores.0.lock().get(&key).cloned();
            let source = source.ok_or_else(|| MachineFailed("nobody to fetch from".to_owned()))?;
            let fetched = source.state();
            let mut state = self.state.lock();
            if fetched.checkpoint.at < manifest.checkpoint.at {
                return Err(MachineFailed("an older state than was promised".to_owned()));
            }
            if fetched.checkpoint.at > state.checkpoint.at {
                state.checkpoint = fetched.checkpoint;
                state.commands = fetched.commands;
            }
            self.durable.lock().insert(self.group, state.kept());
            state.installed += 1;
            Ok(())
        })
    }
}
