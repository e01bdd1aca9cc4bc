//! Leaving without a crowd: clients are told to look elsewhere and are closed one by one.

use super::start::Server;
use crate::broker::CloseReason;
use std::sync::Arc;
use std::time::Duration;

/// Longest pause between two clients.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Lets the clients go. New ones are not accepted any more when this is called; the server ends when it is over.
pub(super) async fn leave(server: Arc<Server>) {
    tracing::info!("Entering lame duck mode, stop accepting new clients");
    server.announce_lame_duck();
    server.hand_leads_over().await;
    server.stop_jetstream().await;
    let Some(clients) = server.clients() else {
        return;
    };
    let count = clients.connected_count();
    if count == 0 {
        return;
    }
    clients.announce(|info| info.ldm = true);
    let options = server.options();
    let timing = &options.timing;
    tokio::time::sleep(timing.lame_duck_grace_period).await;
    let spread = timing
        .lame_duck_duration
        .saturating_sub(timing.lame_duck_grace_period);
    let pause_max = pause(spread, count);
    tracing::info!("Closing existing clients");
    for client in clients.all() {
        client.outbox().close(CloseReason::ServerShutdown);
        tokio::time::sleep(random_between(pause_max / 2, pause_max)).await;
    }
}

fn pause(spread: Duration, clients: usize) -> Duration {
    let clients = u32::try_from(clients.max(1)).unwrap_or(u32::MAX);
    (spread / clients).min(PAUSE_MAX)
}

/// Not all servers of a cluster that leave together should close clients in step.
fn random_between(least: Duration, most: Duration) -> Duration {
    let mut bytes = [0u8; 4];
    let _ = getrandom::fill(&mut bytes);
    let share = f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX);
    least + most.saturating_sub(least).mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_spread_over_the_time_there_is() {
        assert_eq!(pause(Duration::from_secs(110), 10), PAUSE_MAX);
        assert_eq!(
            pause(Duration::from_secs(110), 11_000),
            Duration::from_millis(10)
        );
        let (least, most) = (Duration::from_millis(5), Duration::from_millis(10));
        for _ in 0..100 {
            assert!((least..=most).contains(&random_between(least, most)));
        }
    }
}
