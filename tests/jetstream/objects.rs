//! Object stores: large objects in many messages.

use std::io;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use async_nats::jetstream::object_store::Config;
use futures_util::TryStreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::common::Server;
use super::connect;

#[tokio::test]
async fn an_object_comes_back_as_it_was_put() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let config = Config {
        bucket: "O".to_owned(),
        ..Config::default()
    };
    let store = context.create_object_store(config).await.expect("created");
    let content: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    store
        .put("big", &mut content.as_slice())
        .await
        .expect("put");
    let mut read = Vec::new();
    store
        .get("big")
        .await
        .expect("is there")
        .read_to_end(&mut read)
        .await
        .expect("read");
    assert!(read == content, "the content differs");
    let names: Vec<String> = store
        .list()
        .await
        .expect("a list")
        .map_ok(|info| info.name)
        .try_collect()
        .await
        .expect("names");
    assert_eq!(names, ["big"]);
    store.delete("big").await.expect("deleted");
    assert!(store.get("big").await.is_err());
}

/// So many bytes that are made as they are read: no two neighbours of 64 KiB are the same.
struct Made {
    at: u64,
    length: u64,
}

fn byte_at(at: u64) -> u8 {
    ((at >> 16) ^ (at % 251)) as u8
}

impl AsyncRead for Made {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = (self.length - self.at).min(buffer.remaining() as u64);
        let bytes: Vec<u8> = (self.at..self.at + count).map(byte_at).collect();
        buffer.put_slice(&bytes);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

/// `NATS_TEST_OBJECT_BYTES` says how large, a gibibyte for instance.
#[tokio::test]
async fn a_large_object_is_streamed_in_and_out() {
    let length = super::number("NATS_TEST_OBJECT_BYTES", 16 << 20);
    let server = Server::jetstream();
    let context = connect(&server).await;
    let config = Config {
        bucket: "O".to_owned(),
        ..Config::default()
    };
    let store = context.create_object_store(config).await.expect("created");
    let began = Instant::now();
    let info = store
        .put("large", &mut Made { at: 0, length })
        .await
        .expect("put");
    assert_eq!(info.size as u64, length);
    let (put, began) = (began.elapsed(), Instant::now());
    let mut object = store.get("large").await.expect("is there");
    let (mut part, mut at) = (vec![0; 1 << 17], 0u64);
    loop {
        let count = object.read(&mut part).await.expect("read");
        if count == 0 {
            break;
        }
        let right = part[..count]
            .iter()
            .zip(at..)
            .all(|(byte, at)| *byte == byte_at(at));
        assert!(right, "the content differs after {at} bytes");
        at += count as u64;
    }
    println!(
        "{length} bytes put in {put:?}, got in {:?}",
        began.elapsed()
    );
    assert_eq!(at, length);
}
