//! What a message between clients costs: parsing, matching and staging it for its receiver, and the
//! whole way over loopback sockets.

use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nats_server::broker::{
    Broker, Client, ClientInfo, Delivery, Message, Outbox, OutboxLimits, Owner, RoundTrip,
    Subscription, Target, Wire,
};
use nats_server::config::options::{Options, WriteTimeout};
use nats_server::connection::Clients;
use nats_server::protocol::{Op, Parsed, Rules, ServerInfo, parse};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RULES: Rules = Rules {
    control_line_bytes_max: 4096,
    payload_bytes_max: 1 << 20,
    headers: true,
};

/// A batch as one read of a busy socket brings it.
fn batch(payload_bytes: usize, messages: usize) -> Vec<u8> {
    let payload = "x".repeat(payload_bytes);
    format!("PUB some.subject {payload_bytes}\r\n{payload}\r\n")
        .repeat(messages)
        .into_bytes()
}

/// A socket that takes everything.
struct Sink;

impl Wire for Sink {
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn shutdown(&self) {}
}

fn subscribed_client(broker: &Broker) -> Arc<Client> {
    let limits = OutboxLimits {
        pending_bytes_max: 64 << 20,
        write_deadline: Duration::from_secs(10),
        write_timeout: WriteTimeout::Close,
    };
    let info = ClientInfo {
        id: 1,
        account: "$G".into(),
        user: String::new(),
        name: String::new(),
        lang: String::new(),
        version: String::new(),
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        started: SystemTime::UNIX_EPOCH,
        websocket: false,
        round_trip: RoundTrip::default(),
    };
    let client = Arc::new(Client::new(
        info,
        Outbox::new(Box::new(Sink), limits),
        false,
    ));
    let subscription = Subscription::new(
        Bytes::from_static(b"some.*"),
        None,
        Target::Client {
            client: Arc::clone(&client),
            sid: Bytes::from_static(b"1"),
        },
        None,
    );
    broker
        .global()
        .insert(&Arc::new(subscription))
        .expect("a valid subject");
    client
}

fn deliver_messages(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let broker = Broker::new();
    let _client = subscribed_client(&broker);
    let input = batch(16, 1000);
    let mut delivery = Delivery::default();
    let mut group = c.benchmark_group("deliver");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("parse_match_stage_16B", |b| {
        b.iter(|| {
            let mut rest = input.as_slice();
            while let Ok(Parsed::Complete {
                op: Op::Publish(publish),
                consumed,
            }) = parse(rest, &RULES)
            {
                let message = Message {
                    subject: publish.subject,
                    reply: publish.reply,
                    headers: publish.headers,
                    payload: publish.payload,
                    owner: Owner::Buffer,
                    trace: None,
                };
                delivery.publish(broker.global(), &message, None, broker.traffic());
                rest = &rest[consumed..];
            }
            delivery.hand_over(broker.traffic());
        });
    });
    group.finish();
}

fn start_server(runtime: &Runtime) -> SocketAddr {
    runtime.block_on(async {
        let clients = Clients::new(
            Arc::new(Broker::new()),
            &Options::default(),
            None,
            ServerInfo::default(),
        )
        .expect("valid options");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((stream, address)) = listener.accept().await {
                clients.admit(stream, address);
            }
        });
        address
    })
}

/// A client whose answers up to its first pong are read.
fn connect(address: SocketAddr, say: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream
        .write_all(format!("CONNECT {{\"verbose\":false}}\r\n{say}PING\r\n").as_bytes())
        .expect("a write");
    let mut heard = Vec::new();
    while !heard.ends_with(b"PONG\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a read");
        heard.push(byte[0]);
    }
    stream
}

/// The time that a thread has spent on a processor.
fn processor_time(thread: &str) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{thread}/schedstat")).unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

fn processor_time_of_all_threads() -> Duration {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return Duration::ZERO;
    };
    threads
        .flatten()
        .map(|thread| processor_time(&format!("self/task/{}", thread.file_name().display())))
        .sum()
}

/// Sends this many messages from one client to another and says how long that took, and how much of
/// the processor the server had of it.
fn one_way(address: SocketAddr, payload_bytes: usize, messages: usize) -> (Duration, Duration) {
    let mut subscriber = connect(address, "SUB some.subject 1\r\n");
    let mut publisher = connect(address, "");
    let burst_messages = (64 * 1024 / (payload_bytes + 30)).max(1);
    let bursts = messages.div_ceil(burst_messages);
    let one = format!("MSG some.subject 1 {payload_bytes}\r\n").len() + payload_bytes + 2;
    let expected_bytes = one * bursts * burst_messages;
    let all_before = processor_time_of_all_threads();
    let start = Instant::now();
    let sending = std::thread::spawn(move || {
        let burst = batch(payload_bytes, burst_messages);
        for _ in 0..bursts {
            publisher.write_all(&burst).expect("a write");
        }
        processor_time("thread-self")
    });
    let receiving = std::thread::spawn(move || {
        let mut buffer = vec![0; 256 * 1024];
        let mut received = 0;
        while received < expected_bytes {
            received += subscriber.read(&mut buffer).expect("a read");
        }
        processor_time("thread-self")
    });
    let received = receiving.join().expect("the receiver");
    let elapsed = start.elapsed();
    let sent = sending.join().expect("the sender");
    // The two threads are gone from the list again, so what is left is the server's.
    let _ = (sent, received);
    (elapsed, processor_time_of_all_threads() - all_before)
}

fn over_loopback(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let address = start_server(&runtime);
    let mut group = c.benchmark_group("loopback_1_to_1");
    group.sample_size(10);
    for (name, payload_bytes, messages) in [
        ("16B", 16, 1_000_000),
        ("128B", 128, 500_000),
        ("4KiB", 4096, 40_000),
        ("32KiB", 32 * 1024, 8_000),
    ] {
        group.throughput(Throughput::Elements(messages as u64));
        let mut server = Duration::ZERO;
        let mut sent = 0;
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| {
                (0..iterations)
                    .map(|_| {
                        let (elapsed, of_server) = one_way(address, payload_bytes, messages);
                        server += of_server;
                        sent += messages;
                        elapsed
                    })
                    .sum()
            });
        });
        if sent > 0 {
            println!(
                "{name}: server processor time {:.1} ns/message",
                server.as_nanos() as f64 / sent as f64
            );
        }
    }
    group.finish();
}

criterion_group!(benches, deliver_messages, over_loopback);
criterion_main!(benches);
