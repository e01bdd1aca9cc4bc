// Key-value buckets with the packages of npm's @nats-io.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { Kvm, KvWatchInclude } from "@nats-io/kv";
import { connect } from "@nats-io/transport-node";
import { withServer } from "./server.mjs";

const withBucket = (options, body) =>
  withServer(async (client, server) => {
    const bucket = await new Kvm(client).create("bucket", options);
    await body(bucket, client, server);
  }, connect);

// As many entries of an iterator as are wanted.
async function first(iterator, count) {
  const entries = [];
  if (count === 0) return entries;
  for await (const entry of iterator) {
    entries.push(entry);
    if (entries.length === count) break;
  }
  return entries;
}

const shown = (entry) => `${entry.operation} ${entry.key}=${entry.string()}@${entry.revision}`;

test("the history of a key is as long as the bucket keeps it", withBucket({ history: 3 }, async (bucket) => {
  for (const value of ["one", "two", "three", "four"]) await bucket.put("key", value);
  await bucket.delete("key");
  await bucket.put("other", "x");
  const history = await first(await bucket.history({ key: "key" }), 3);
  assert.deepEqual(history.map(shown), ["PUT key=three@3", "PUT key=four@4", "DEL key=@5"]);
  assert.equal((await bucket.get("key", { revision: 3 })).string(), "three");
  assert.equal(await bucket.get("key", { revision: 1 }), null);
  const status = await bucket.status();
  assert.deepEqual([status.history, status.values], [3, 4]);
}));

test("a watch sees what is there, what comes and what goes", withBucket({ history: 5 }, async (bucket) => {
  await bucket.put("a.x", "1");
  await bucket.put("a.x", "2");
  await bucket.put("b", "3");
  const everything = await first(await bucket.watch(), 2);
  assert.deepEqual(everything.map(shown), ["PUT a.x=2@2", "PUT b=3@3"]);
  const past = await first(await bucket.watch({ key: "a.*", include: KvWatchInclude.AllHistory }), 2);
  assert.deepEqual(past.map(shown), ["PUT a.x=1@1", "PUT a.x=2@2"]);
  const resumed = await first(await bucket.watch({ resumeFromRevision: 2 }), 2);
  assert.deepEqual(resumed.map(shown), ["PUT a.x=2@2", "PUT b=3@3"]);
  const updates = await bucket.watch({ include: KvWatchInclude.UpdatesOnly, key: ["a.>", "c"] });
  await bucket.put("b", "not this one");
  await bucket.put("c", "4");
  await bucket.delete("a.x");
  const seen = await first(updates, 2);
  assert.deepEqual(seen.map(shown), ["PUT c=4@5", "DEL a.x=@6"]);
  assert.ok(seen.every((entry) => entry.isUpdate));
  const keys = await first(await bucket.keys(), 2);
  assert.deepEqual(keys.sort(), ["b", "c"]);
}));

test("a purge leaves nothing of a key but that it was purged", withBucket({ history: 5 }, async (bucket) => {
  await bucket.put("key", "1");
  await bucket.put("key", "2");
  await assert.rejects(bucket.purge("key", { previousSeq: 1 }), /wrong last sequence/);
  await bucket.purge("key", { previousSeq: 2 });
  const history = await first(await bucket.history({ key: "key" }), 1);
  assert.deepEqual(history.map(shown), ["PURGE key=@3"]);
  assert.equal((await bucket.status()).values, 1);
}));

test("keys that live for a while leave markers", withBucket({ history: 2, markerTTL: 2000 }, async (bucket) => {
  const watch = await bucket.watch({ include: KvWatchInclude.UpdatesOnly });
  await bucket.create("short", "x", "1s");
  await bucket.put("gone", "y");
  await bucket.purge("gone", { ttl: "1s" });
  const seen = await first(watch, 4);
  const purged = seen.filter((entry) => entry.operation === "PURGE").map((entry) => entry.key);
  assert.deepEqual(purged.sort(), ["gone", "short"]);
  assert.equal((await bucket.status()).markerTTL, 2000);
  // Markers live no longer than that themselves.
  const deadline = Date.now() + 10_000;
  while ((await bucket.status()).values > 0) {
    assert.ok(Date.now() < deadline, "the markers are still there");
    await pause(100);
  }
  assert.equal(await bucket.get("short"), null);
}));

test("a bucket forgets what is older than it keeps", withBucket({ ttl: 1000 }, async (bucket) => {
  await bucket.put("key", "x");
  const deadline = Date.now() + 10_000;
  while ((await bucket.get("key")) !== null) {
    assert.ok(Date.now() < deadline, "the key is still there");
    await pause(50);
  }
}));

test("of those who swap at once one wins each time", withBucket({ history: 1 }, async (bucket) => {
  const created = await Promise.allSettled(Array.from({ length: 8 }, (_, at) => bucket.create("lock", `${at}`)));
  assert.equal(created.filter(({ status }) => status === "fulfilled").length, 1);
  await bucket.put("count", "0");
  let refused = 0;
  const increment = async () => {
    for (;;) {
      const entry = await bucket.get("count");
      try {
        return await bucket.update("count", `${Number(entry.string()) + 1}`, entry.revision);
      } catch (error) {
        assert.match(error.message, /wrong last sequence/);
        refused += 1;
      }
    }
  };
  const worker = async () => {
    for (let round = 0; round < 10; round += 1) await increment();
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  assert.equal((await bucket.get("count")).string(), "80");
  assert.ok(refused > 0);
  // What was deleted can be created again.
  await bucket.delete("lock");
  await bucket.create("lock", "again");
  assert.equal((await bucket.get("lock")).string(), "again");
}));

test("buckets are compressed, listed, limited and destroyed", withServer(async (client) => {
  const manager = new Kvm(client);
  const bucket = await manager.create("small", { compression: true, maxValueSize: 10, description: "small ones" });
  assert.equal((await bucket.status()).compression, true);
  await assert.rejects(bucket.put("key", "more than ten bytes"), /message size exceeds maximum/);
  await manager.create("other");
  const names = (await first(await manager.list(), 2)).map(({ bucket }) => bucket);
  assert.deepEqual(names.sort(), ["other", "small"]);
  await bucket.destroy();
  await assert.rejects(manager.open("small").then((gone) => gone.put("key", "x")));
}, connect));

test("a killed server comes back with its buckets", withBucket({ history: 2 }, async (bucket, client, server) => {
  await Promise.all(Array.from({ length: 200 }, (_, at) => bucket.put(`key.${at}`, `${at}`)));
  await client.close();
  await server.end("SIGKILL");
  await server.start();
  const again = await server.connect({}, connect);
  try {
    const kept = await new Kvm(again).open("bucket");
    assert.equal((await kept.status()).values, 200);
    assert.equal((await kept.get("key.199")).string(), "199");
  } finally {
    await again.close();
  }
}));
