//! Writers that publish one message after another until each is acknowledged, and remember what they were told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, message::PublishMessage};
use parking_lot::Mutex;
use tokio::task::JoinSet;

/// What was acknowledged.
#[derive(Default)]
pub struct Acknowledged {
    /// By sequence.
    pub payloads: BTreeMap<u64, String>,
    /// Acks that named a sequence which another message has.
    pub contradictions: Vec<String>,
    /// When the last ack came.
    pub last: Option<Instant>,
}

pub struct Load {
    pub acknowledged: Arc<Mutex<Acknowledged>>,
    stop: Arc<AtomicBool>,
    writers: JoinSet<()>,
}

impl Load {
    /// Starts writers, each with a client of its own.
    pub fn start(clients: Vec<async_nats::Client>) -> Self {
        let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for (writer, client) in clients.into_iter().enumerate() {
            let acknowledged = Arc::clone(&acknowledged);
            let stop = Arc::clone(&stop);
            writers.spawn(async move {
                let mut context = jetstream::new(client);
                context.set_timeout(Duration::from_secs(1));
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    write(&context, writer, number, &acknowledged, &stop).await;
                }
            });
        }
        Self {
            acknowledged,
            stop,
            writers,
        }
    }

    /// Waits for an ack that comes after this moment; how long that took.
    pub async fn next_ack(&self, patience: Duration) -> Option<Duration> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if let Some(last) = self.acknowledged.lock().last
                && last > begun
            {
                return Some(last - begun);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }

    /// No new messages; those that wait for their ack get it.
    pub async fn stop(mut self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        while self.writers.join_next().await.is_some() {}
        std::mem::take(&mut *self.acknowledged.lock())
    }
}

/// Publishes one message, again and again under the same id, until it is acknowledged.
async fn write(
    context: &jetstream::Context,
    writer: usize,
    number: u64,
    acknowledged: &Mutex<Acknowledged>,
    stop: &AtomicBool,
) {
    let payload = format!("{writer}-{number}");
    let stopped_at = Instant::now();
    loop {
        let message = PublishMessage::build()
            .payload(payload.clone().into())
            .message_id(&payload);
        let sent = context.send_publish(format!("faults.{writer}"), message);
        let ack = match sent.await {
            Ok(ack) => ack.await.ok(),
            Err(_) => None,
        };
        if let Some(ack) = ack {
            let mut acknowledged = acknowledged.lock();
            acknowledged.last = Some(Instant::now());
            let before = acknowledged.payloads.insert(ack.sequence, payload.clone());
            if let Some(before) = before.filter(|before| *before != payload) {
                let sequence = ack.sequence;
                let text = format!("{before} and {payload} were both acknowledged as {sequence}");
                acknowledged.contradictions.push(text);
            }
            return;
        }
        if stop.load(Ordering::Relaxed) && stopped_at.elapsed() > Duration::from_secs(30) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
