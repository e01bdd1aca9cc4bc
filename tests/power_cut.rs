//! A power cut for the real server under load: the file system that holds its store is shut down while clients publish, without flushing
//! anything. After mounting it again and starting the server again, every acknowledged message is there.
//!
//! Needs root, loop devices and mkfs.ext4; where they are missing the test says that it was skipped.

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use common::{Server, ServerOptions};
use parking_lot::Mutex;

const STREAMS: [&str; 3] = ["ONE", "TWO", "THREE"];
/// Publishes that a client has in flight.
const WINDOW: usize = 32;
/// When nothing was acknowledged for so long after the cut, nothing will be.
const SILENCE: Duration = Duration::from_secs(2);

/// What was acknowledged: the payload of each sequence of each stream.
type Acknowledged = Arc<Mutex<BTreeMap<(&'static str, u64), String>>>;

/// An ext4 file system in an image file. Unmounted when dropped.
struct Mount {
    image: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// `Err` says what is missing here.
    fn new(root: &Path) -> Result<Self, String> {
        let image = root.join("image");
        let point = root.join("mounted");
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(1 << 30).map_err(|error| error.to_string())?;
        std::fs::create_dir(&point).map_err(|error| error.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let mount = Self { image, point };
        mount.mount()?;
        Ok(mount)
    }

    fn mount(&self) -> Result<(), String> {
        let mut command = Command::new("mount");
        run(command
            .args(["-o", "loop"])
            .arg(&self.image)
            .arg(&self.point))
    }

    fn unmount(&self) -> Result<(), String> {
        run(Command::new("umount").arg(&self.point))
    }

    /// Takes the device away from under the file system: nothing that is not on it yet gets there.
    fn cut_power(&self) {
        const SHUTDOWN: libc::c_ulong = 0x8004_587d; // FS_IOC_SHUTDOWN
        const NO_LOG_FLUSH: u32 = 2;
        let directory = File::open(&self.point).expect("the mount point opens");
        // SAFETY: the descriptor is open, and the kernel reads four bytes from a place that outlives the call.
        let result = unsafe { libc::ioctl(directory.as_raw_fd(), SHUTDOWN as _, &NO_LOG_FLUSH) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.unmount();
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

async fn context(server: &Server) -> jetstream::Context {
    let client = async_nats::connect(server.url())
        .await
        .expect("the server takes clients");
    jetstream::new(client)
}

/// Publishes to one stream until an acknowledgement fails or does not come.
async fn publish(
    context: jetstream::Context,
    stream: &'static str,
    acknowledged: Acknowledged,
    count: Arc<AtomicUsize>,
    round: usize,
) {
    for number in 0.. {
        let mut waiting = Vec::with_capacity(WINDOW);
        for place in 0..WINDOW {
            let payload = format!(
                "{stream} {round} {number} {place} {}",
                "x".repeat(number % 999)
            );
            let Ok(ack) = context.publish(stream, payload.clone().into()).await else {
                return;
            };
            waiting.push((payload, ack));
        }
        for (payload, ack) in waiting {
            let Ok(Ok(ack)) = tokio::time::timeout(SILENCE, ack.into_future()).await else {
                return;
            };
            acknowledged.lock().insert((stream, ack.sequence), payload);
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Lets clients publish until that many were acknowledged, and cuts the power in the middle of it.
async fn publish_and_cut(
    server: &Server,
    mount: &Mount,
    acknowledged: &Acknowledged,
    messages: usize,
    round: usize,
) {
    let count = Arc::new(AtomicUsize::new(0));
    let mut publishers = Vec::new();
    for stream in STREAMS {
        let context = context(server).await;
        let config = stream::Config {
            name: stream.to_owned(),
            subjects: vec![stream.to_owned()],
            ..Default::default()
        };
        context
            .get_or_create_stream(config)
            .await
            .expect("the stream is made");
        let (acknowledged, count) = (Arc::clone(acknowledged), Arc::clone(&count));
        publishers.push(tokio::spawn(publish(
            context,
            stream,
            acknowledged,
            count,
            round,
        )));
    }
    common::eventually_async("enough is acknowledged", async || {
        let reached = count.load(Ordering::Relaxed) >= messages;
        reached.then_some(())
    })
    .await;
    mount.cut_power();
    for publisher in publishers {
        publisher.await.expect("the publisher ends");
    }
}

async fn check(server: &Server, acknowledged: &Acknowledged) {
    let context = context(server).await;
    let acknowledged = acknowledged.lock().clone();
    for ((name, sequence), payload) in acknowledged {
        let stream = context.get_stream(name).await.expect("the stream is there");
        let message = stream
            .get_raw_message(sequence)
            .await
            .unwrap_or_else(|error| panic!("{name} {sequence} was acknowledged: {error}"));
        assert!(message.payload == payload.as_bytes(), "{name} {sequence}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_message_survives_power_cuts_under_load() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let mount = match Mount::new(root.path()) {
        Ok(mount) => mount,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let store = mount.point.join("store");
    let store = store.to_str().expect("a plain path");
    let mut server = ServerOptions::default()
        .arguments(["-js", "-sd", store])
        .start();
    let acknowledged = Acknowledged::default();
    for (round, messages) in [300, 1500].into_iter().enumerate() {
        publish_and_cut(&server, &mount, &acknowledged, messages, round).await;
        server.kill();
        mount.unmount().expect("nobody uses the file system");
        mount.mount().expect("the file system is intact");
        server.start_again();
        check(&server, &acknowledged).await;
        println!("{} acknowledged and found", acknowledged.lock().len());
    }
    server.kill();
}
