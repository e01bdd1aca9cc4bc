//! Object stores: large objects in many messages.

use async_nats::jetstream::object_store::Config;
use futures_util::TryStreamExt;
use tokio::io::AsyncReadExt;

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
