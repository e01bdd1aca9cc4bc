//! What the system account may have done on this server.

use super::start::Server;
use crate::broker::CloseReason;
use crate::system::Operator;

impl Operator for Server {
    fn reload(&self) -> Result<(), String> {
        Server::reload(self).map_err(|error| {
            let reason = error.to_string();
            tracing::error!("Failed to reload server configuration: {reason}");
            reason
        })
    }

    fn kick(&self, cid: u64) -> Result<(), String> {
        let client = self.clients().and_then(|clients| clients.get(cid));
        let client = client.ok_or("no such client or leafnode id")?;
        client.outbox().close(CloseReason::Kicked);
        Ok(())
    }

    fn send_away(&self, cid: u64) -> Result<(), String> {
        let clients = self.clients().ok_or("no such client id")?;
        let client = clients.get(cid).ok_or("no such client id")?;
        match clients.send_away(&client) {
            true => Ok(()),
            false => Err("client does not support Lame Duck Mode or is not ready to receive the notification".into()),
        }
    }
}
