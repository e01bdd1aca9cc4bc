//! Links that other servers dial to the cluster port: who may, and for how long.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::admission::{CameIn, Shown};
use super::handshake::{Accepted, RouteError, check_credentials};
use super::options::RouteOptions;
use super::shared::Core;
use super::socket::{Talk, TalkError};
use crate::cluster::AcceptedLink;
use crate::cluster::link::Admission;
use crate::protocol::route::info::PeerCredentials;
use crate::tls::{KeyHash, PeerIdentity};

/// The links that other servers have dialled to the cluster port, as long as they stand.
#[derive(Default)]
pub(super) struct AdmittedLinks(Mutex<Vec<Arc<AdmittedLink>>>);

struct AdmittedLink {
    shown: Shown,
    turned_out: watch::Sender<bool>,
}

impl AdmittedLinks {
    /// Remembers what the other side of a link has shown, as long as somebody holds what this gives back.
    pub fn admit(&self, shown: Shown) -> Admission {
        let (turned_out, admission) = Admission::until_told();
        let mut all = self.0.lock();
        all.retain(|link| !link.turned_out.is_closed());
        all.push(Arc::new(AdmittedLink { shown, turned_out }));
        admission
    }

    /// Ends those that may not stay. Not under the lock: to say so may take as long as to look at a password.
    pub fn turn_out(&self, may_stay: impl Fn(&Shown) -> bool) {
        let all = self.0.lock().clone();
        for link in all.iter().filter(|link| !may_stay(&link.shown)) {
            link.turned_out.send_replace(true);
        }
    }
}

/// Who dialled us, before it has said anything.
pub(super) struct Caller {
    pub from: SocketAddr,
    pub key: Option<KeyHash>,
    pub peer: Option<PeerIdentity>,
}

/// It is a link: whoever takes links has it from here.
pub(super) async fn take_link(
    core: &Arc<Core>,
    options: &Arc<RouteOptions>,
    mut talk: Talk,
    line: Vec<u8>,
    caller: Caller,
) -> Result<Accepted, RouteError> {
    let Some(links) = core.link_acceptor() else {
        talk.refuse("Links are not taken").await;
        return Err(RouteError::Unexpected);
    };
    let json = line.get(5..).unwrap_or_default();
    let said: PeerCredentials = serde_json::from_slice(json).map_err(TalkError::from)?;
    let came = CameIn {
        user: said.user.unwrap_or_default(),
        password: said.pass.unwrap_or_default(),
        peer: caller.peer,
    };
    let came = check_credentials(options, &mut talk, came).await?;
    let shown = Shown {
        key: caller.key,
        came: Some(came),
    };
    let admission = {
        let _no_change = core.table.lock();
        if !Arc::ptr_eq(options, &core.options.load()) {
            return Err(RouteError::Changed);
        }
        core.admitted_links.admit(shown)
    };
    let (socket, rest) = talk.into_link();
    links.accept(AcceptedLink {
        socket,
        line,
        rest,
        address: caller.from,
        admission,
    });
    Ok(Accepted::Link)
}
