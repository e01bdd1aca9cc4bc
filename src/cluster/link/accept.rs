//! A peer dialled us: from its `LINK` line to a connection that counts.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::watch;
use tokio::time::timeout;

use super::hello::{Hello, HelloError, refusal};
use super::links::{Core, Links};
use super::options::Credentials;
use super::session::Session;
use super::socket::{Socket, Writer};

/// Why a peer's link was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It is no peer of ours.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The connection broke.
    #[error(transparent)]
    Failed(#[from] io::Error),
    /// Its credentials could not be looked at in time.
    #[error("the handshake took too long")]
    TimedOut,
}

/// Whether a connection may stay, as whoever has let it in decides.
#[derive(Debug)]
pub struct Admission(watch::Receiver<bool>);

impl Admission {
    /// An admission that holds until the sender says `true`. Whoever has the sender finds it closed when the connection is over.
    pub fn until_told() -> (watch::Sender<bool>, Self) {
        let (ends, ended) = watch::channel(false);
        (ends, Self(ended))
    }

    /// Waits until it holds no more.
    async fn ended(&mut self) {
        if self.0.wait_for(|ended| *ended).await.is_err() {
            // Nobody is left who could take it back.
            std::future::pending::<()>().await;
        }
    }
}

impl Links {
    /// Takes over a connection on which a peer, after our `INFO`, said `line` (a `LINK` line without its end) and then `rest`. Ready when the link
    /// stands or is refused, which the peer is told. The link ends with its admission.
    pub async fn accept(
        &self,
        socket: Socket,
        line: &[u8],
        rest: BytesMut,
        mut admission: Admission,
    ) -> Result<(), AcceptError> {
        let core = Arc::clone(self.core());
        let (reader, writer) = socket.into_split();
        let session = match timeout(core.options.timing.handshake_timeout, admit(&core, line)).await
        {
            Ok(Ok(session)) => session,
            Ok(Err(error)) => return refuse(&core, writer, error).await,
            Err(_) => return Err(AcceptError::TimedOut),
        };
        let greeting = core.hello(session.channel, None).line();
        tracing::info!(
            "{:?} link with {:?} stands, dialled by it",
            session.channel,
            session.peer.name
        );
        tokio::spawn(async move {
            let mut running =
                std::pin::pin!(Arc::clone(&session).run(reader, writer, rest, greeting));
            tokio::select! {
                () = &mut running => return,
                () = admission.ended() => session.turn_out(),
            }
            running.await;
        });
        Ok(())
    }
}

async fn admit(core: &Arc<Core>, line: &[u8]) -> Result<Arc<Session>, HelloError> {
    let hello = Hello::parse(line)?;
    hello.check(&core.options.server_name, &core.meeting.load().cluster)?;
    let credentials = match (hello.user, hello.pass) {
        (None, None) => None,
        (user, password) => Some(Credentials {
            user: user.unwrap_or_default(),
            password: password.unwrap_or_default(),
        }),
    };
    let authorize = Arc::clone(&core.options.authorize);
    // A hash takes longer than a task may be busy.
    let allowed = tokio::task::spawn_blocking(move || authorize(credentials.as_ref())).await;
    if !allowed.unwrap_or(false) {
        return Err(HelloError::Authorization);
    }
    let peer = core.peer(&hello.server_name);
    let by_lesser = *peer.name < *core.options.server_name;
    let session = Session::new(core, &peer, hello.channel, hello.server_id, by_lesser, None);
    core.adopt(&session)?;
    Ok(session)
}

async fn refuse(core: &Core, writer: Writer, error: HelloError) -> Result<(), AcceptError> {
    let at_most = core.options.timing.handshake_timeout;
    // It may be gone already.
    let _ = writer.write_line(&refusal(&error), at_most).await;
    Err(error.into())
}
