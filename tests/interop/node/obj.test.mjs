// Object stores with the packages of npm's @nats-io.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { Objm } from "@nats-io/obj";
import { connect } from "@nats-io/transport-node";
import { withServer } from "./server.mjs";

const withStore = (options, body) =>
  withServer(async (client, server) => body(await new Objm(client).create("store", options), client, server), connect);

const bytes = (length) => Uint8Array.from({ length }, (_, at) => at % 251);

async function read(result) {
  const parts = [];
  for await (const part of result.data) parts.push(part);
  assert.ok(!(await result.error));
  return new Uint8Array(Buffer.concat(parts));
}

const blob = async (store, name) => new Uint8Array(await store.getBlob(name));

test("an object is put in pieces and got as it was", withStore({}, async (store) => {
  const data = bytes(1_000_001);
  const content = new Blob([data]).stream();
  const put = await store.put({ name: "large", description: "of many chunks", options: { max_chunk_size: 4096 } }, content);
  assert.deepEqual([put.size, put.chunks, put.deleted], [data.length, Math.ceil(data.length / 4096), false]);
  const digest = createHash("sha256").update(data).digest("base64url");
  assert.equal(put.digest.replaceAll("=", ""), `SHA-256=${digest}`.replaceAll("=", ""));
  const found = await store.get("large");
  assert.equal(found.info.description, "of many chunks");
  assert.deepEqual(await read(found), data);
  assert.equal(await store.get("nothing"), null);
}));

// A stream of so many bytes, made as they are read: every chunk of it is another one.
function source(length, digest) {
  let left = length;
  const piece = Buffer.alloc(1 << 20, "what an object is made of ");
  return new ReadableStream({
    pull(controller) {
      piece.writeDoubleLE(left);
      const part = Uint8Array.prototype.slice.call(piece, 0, Math.min(left, piece.length));
      left -= part.length;
      digest.update(part);
      controller.enqueue(part);
      if (left === 0) controller.close();
    },
  }, { highWaterMark: 0 });
}

// `NATS_TEST_OBJECT_BYTES` says how large it is, a gibibyte for instance. Nothing holds all of it.
test("a large object streams in and out", withStore({}, async (store) => {
  const length = Number(process.env.NATS_TEST_OBJECT_BYTES ?? 64 << 20);
  const [sent, heard] = [createHash("sha256"), createHash("sha256")];
  let began = performance.now();
  const put = await store.put({ name: "large" }, source(length, sent), { timeout: 60_000 });
  const took = performance.now() - began;
  began = performance.now();
  const found = await store.get("large");
  let got = 0;
  for await (const part of found.data) {
    heard.update(part);
    got += part.length;
  }
  assert.ok(!(await found.error));
  console.log(`${length} bytes put in ${took | 0} ms, got in ${(performance.now() - began) | 0} ms`);
  assert.deepEqual([put.size, found.info.size, got], [length, length, length]);
  const digest = sent.digest("base64url");
  assert.equal(heard.digest("base64url"), digest);
  assert.equal(put.digest.replaceAll("=", ""), `SHA-256=${digest}`.replaceAll("=", ""));
  assert.equal(put.chunks, Math.ceil(length / (128 << 10)));
}));

test("what replaces an object leaves nothing of it", withStore({ compression: true }, async (store) => {
  const before = await store.putBlob({ name: "blob" }, bytes(300_000));
  const after = await store.putBlob({ name: "blob" }, bytes(1000));
  assert.notEqual(before.nuid, after.nuid);
  assert.deepEqual(await blob(store, "blob"), bytes(1000));
  const status = await store.status({ subjects_filter: ">" });
  assert.equal(status.compression, true);
  // One for the content and one for what is said of it.
  assert.equal(status.streamInfo.state.messages, 2);
  await store.putBlob({ name: "empty" }, new Uint8Array());
  assert.equal((await store.getBlob("empty")).length, 0);
  await assert.rejects(store.putBlob({ name: "blob" }, bytes(1), { previousRevision: 1 }), /wrong last sequence/);
}));

test("objects are listed, described, deleted and watched", withStore({}, async (store) => {
  const watch = await store.watch({ includeHistory: true });
  const seen = [];
  const watching = (async () => {
    for await (const info of watch) {
      seen.push(`${info.name}${info.deleted ? " deleted" : ""}`);
      if (seen.length === 3) break;
    }
  })();
  await store.putBlob({ name: "one" }, bytes(10));
  await store.putBlob({ name: "two" }, bytes(20));
  await store.update("two", { name: "three", description: "another name" });
  assert.equal((await store.info("three")).description, "another name");
  await store.delete("one");
  assert.equal((await store.info("one")).deleted, true);
  assert.equal(await store.getBlob("one"), null);
  await watching;
  assert.equal(seen.length, 3);
  assert.deepEqual((await store.list()).map(({ name }) => name), ["three"]);
}));

test("links lead to objects and to stores", withStore({}, async (store, client) => {
  const object = await store.putBlob({ name: "object" }, bytes(100));
  await store.link("link", object);
  assert.deepEqual(await blob(store, "link"), bytes(100));
  const other = await new Objm(client).create("other");
  const link = await store.linkStore("shelf", other);
  assert.equal(link.options.link.bucket, "other");
  await assert.rejects(store.link("again", await store.info("link")));
}));

test("a sealed store is read only, and a killed server brings it back", withStore({}, async (store, client, server) => {
  await store.putBlob({ name: "kept" }, bytes(500_000));
  assert.equal((await store.seal()).sealed, true);
  await assert.rejects(store.putBlob({ name: "more" }, bytes(1)));
  await client.close();
  await server.end("SIGKILL");
  await server.start();
  const again = await server.connect({}, connect);
  try {
    const kept = await new Objm(again).open("store");
    assert.equal((await kept.status()).sealed, true);
    assert.deepEqual(await blob(kept, "kept"), bytes(500_000));
  } finally {
    await again.close();
  }
}));
