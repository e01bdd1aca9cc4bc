// Streams, consumers, key-value buckets and object stores with the npm client.

import assert from "node:assert/strict";
import { test } from "node:test";
import { AckPolicy, consumerOpts, DeliverPolicy, StringCodec } from "nats";
import { withServer } from "./server.mjs";

const text = StringCodec();

async function filled(client, count = 10) {
  const manager = await client.jetstreamManager();
  const js = client.jetstream();
  await manager.streams.add({ name: "S", subjects: ["s.>"] });
  for (let number = 0; number < count; number += 1) await js.publish(`s.${number % 2}`, text.encode(`${number}`));
  return { manager, js };
}

test("a stream is created, changed, read and deleted", withServer(async (client) => {
  const { manager } = await filled(client, 3);
  assert.equal((await manager.streams.info("S")).state.messages, 3);
  assert.equal((await manager.streams.update("S", { max_msgs: 2 })).config.max_msgs, 2);
  assert.equal(text.decode((await manager.streams.getMessage("S", { seq: 3 })).data), "2");
  await manager.streams.deleteMessage("S", 3);
  await manager.streams.purge("S");
  assert.equal((await manager.streams.info("S")).state.messages, 0);
  assert.ok(await manager.streams.delete("S"));
  await assert.rejects(manager.streams.info("S"), /stream not found/);
}));

test("a message id is stored once", withServer(async (client) => {
  const { js } = await filled(client, 0);
  const first = await js.publish("s.a", text.encode("x"), { msgID: "1" });
  const again = await js.publish("s.a", text.encode("x"), { msgID: "1" });
  assert.deepEqual([first.seq, first.duplicate, again.seq, again.duplicate], [1, false, 1, true]);
}));

test("a pull consumer fetches, acknowledges and goes on", withServer(async (client) => {
  const { manager, js } = await filled(client);
  await manager.consumers.add("S", { durable_name: "puller", ack_policy: AckPolicy.Explicit });
  const consumer = await js.consumers.get("S", "puller");
  const received = [];
  for (const count of [4, 6]) {
    for await (const message of await consumer.fetch({ max_messages: count, expires: 5000 })) {
      received.push(text.decode(message.data));
      await message.ackAck();
    }
  }
  assert.deepEqual(received, [..."0123456789"]);
  const info = await consumer.info();
  assert.deepEqual([info.ack_floor.stream_seq, info.num_ack_pending, info.num_pending], [10, 0, 0]);
}));

test("a consume loop gets what is there and what comes", withServer(async (client) => {
  const { manager, js } = await filled(client);
  await manager.consumers.add("S", { durable_name: "loop", ack_policy: AckPolicy.Explicit });
  const messages = await (await js.consumers.get("S", "loop")).consume();
  await js.publish("s.late", text.encode("late"));
  const received = [];
  for await (const message of messages) {
    received.push(text.decode(message.data));
    message.ack();
    if (received.length === 11) break;
  }
  assert.equal(received.at(-1), "late");
}));

test("an ordered consumer reads the stream in order", withServer(async (client) => {
  const { js } = await filled(client);
  const consumer = await js.consumers.get("S", { filterSubjects: ["s.1"] });
  const received = [];
  for await (const message of await consumer.fetch({ max_messages: 5, expires: 5000 })) {
    received.push(text.decode(message.data));
  }
  assert.deepEqual(received, [..."13579"]);
}));

test("a push consumer delivers from where its policy says", withServer(async (client) => {
  const { js } = await filled(client);
  const options = consumerOpts();
  options.deliverTo("push.here");
  options.startSequence(8);
  options.ackExplicit();
  options.manualAck();
  const subscription = await js.subscribe("s.>", options);
  const received = [];
  for await (const message of subscription) {
    received.push(message.seq);
    message.ack();
    if (received.length === 3) break;
  }
  assert.deepEqual(received, [8, 9, 10]);
}));

test("a deliver policy of last per subject gives one message of each", withServer(async (client) => {
  const { manager, js } = await filled(client);
  await manager.consumers.add("S", {
    durable_name: "latest",
    ack_policy: AckPolicy.None,
    deliver_policy: DeliverPolicy.LastPerSubject,
    filter_subject: "s.>",
  });
  const consumer = await js.consumers.get("S", "latest");
  const received = [];
  for await (const message of await consumer.fetch({ max_messages: 2, expires: 5000 })) {
    received.push(text.decode(message.data));
  }
  assert.deepEqual(received, ["8", "9"]);
}));

test("a key-value bucket puts, gets, watches and deletes", withServer(async (client) => {
  const bucket = await client.jetstream().views.kv("config", { history: 5 });
  const first = await bucket.put("color", text.encode("red"));
  await bucket.update("color", text.encode("blue"), first);
  assert.equal((await bucket.get("color")).string(), "blue");
  await assert.rejects(bucket.update("color", text.encode("green"), first), /wrong last sequence/);
  const watch = await bucket.watch();
  await bucket.put("shape", text.encode("round"));
  const seen = [];
  for await (const entry of watch) {
    seen.push(`${entry.key}=${entry.string()}`);
    if (seen.length === 2) break;
  }
  assert.deepEqual(seen, ["color=blue", "shape=round"]);
  await bucket.delete("color");
  assert.equal((await bucket.get("color")).operation, "DEL");
  const keys = [];
  for await (const key of await bucket.keys()) keys.push(key);
  assert.deepEqual(keys, ["shape"]);
}));

// NATS_TEST_KEYS says how many, a million for instance.
test("many keys are put and all are listed", withServer(async (client) => {
  const count = Number(process.env.NATS_TEST_KEYS ?? 2000);
  const bucket = await client.jetstream().views.kv("many");
  const value = text.encode("value");
  let began = Date.now();
  for (let first = 0; first < count; first += 1000) {
    const length = Math.min(1000, count - first);
    await Promise.all(Array.from({ length }, (_, index) => bucket.put(`key.${first + index}`, value)));
  }
  const put = Date.now() - began;
  began = Date.now();
  const keys = new Set();
  for await (const key of await bucket.keys()) keys.add(key);
  console.log(`${count} keys put in ${put} ms, listed in ${Date.now() - began} ms`);
  assert.equal(keys.size, count);
}));

// NATS_TEST_OBJECT_BYTES says how large, a gibibyte for instance.
test("a large object is streamed in and out", withServer(async (client) => {
  const length = Number(process.env.NATS_TEST_OBJECT_BYTES ?? 8 << 20);
  const byteAt = (at) => at % 251;
  const store = await client.jetstream().views.os("large");
  let made = 0;
  const content = new ReadableStream({
    pull(controller) {
      if (made === length) return controller.close();
      const size = Math.min(1 << 17, length - made);
      const first = made;
      controller.enqueue(Uint8Array.from({ length: size }, (_, index) => byteAt(first + index)));
      made += size;
    },
  });
  let began = Date.now();
  await store.put({ name: "large" }, content, { timeout: 600_000 });
  const put = Date.now() - began;
  began = Date.now();
  const found = await store.get("large");
  let at = 0;
  for await (const part of found.data) {
    for (const byte of part) {
      if (byte !== byteAt(at)) assert.fail(`the content differs at ${at}`);
      at += 1;
    }
  }
  assert.ok(!(await found.error));
  console.log(`${length} bytes put in ${put} ms, got in ${Date.now() - began} ms`);
  assert.equal(at, length);
}));

test("an object store gives back what it was given", withServer(async (client) => {
  const store = await client.jetstream().views.os("files");
  const data = new Uint8Array(1 << 20).map((_, index) => index);
  await store.putBlob({ name: "blob" }, data);
  assert.deepEqual(await store.getBlob("blob"), data);
  await store.delete("blob");
  assert.equal(await store.getBlob("blob"), null);
}));

test("a killed server comes back with everything acknowledged", withServer(async (client, server) => {
  const { manager, js } = await filled(client, 100);
  await manager.consumers.add("S", { durable_name: "half", ack_policy: AckPolicy.Explicit });
  const consumer = await js.consumers.get("S", "half");
  for await (const message of await consumer.fetch({ max_messages: 50, expires: 5000 })) await message.ackAck();
  await client.close();
  await server.end("SIGKILL");
  await server.start();
  const again = await server.connect();
  try {
    const state = (await (await again.jetstreamManager()).streams.info("S")).state;
    assert.deepEqual([state.messages, state.last_seq], [100, 100]);
    const rest = [];
    const kept = await again.jetstream().consumers.get("S", "half");
    for await (const message of await kept.fetch({ max_messages: 50, expires: 5000 })) rest.push(message.seq);
    assert.deepEqual(rest, Array.from({ length: 50 }, (_, index) => index + 51));
  } finally {
    await again.close();
  }
}));
