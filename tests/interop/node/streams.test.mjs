// Streams and consumers with the packages of npm's @nats-io.

import assert from "node:assert/strict";
import { test } from "node:test";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, headers } from "@nats-io/transport-node";
import { withServer } from "./server.mjs";

async function filled(client, count = 10, more = {}) {
  const manager = await jetstreamManager(client);
  const js = jetstream(client);
  await manager.streams.add({ name: "S", subjects: ["s.>"], allow_direct: true, ...more });
  for (let number = 0; number < count; number += 1) await js.publish(`s.${number % 2}`, `${number}`);
  return { manager, js };
}

test("messages are fetched, consumed and counted", withServer(async (client) => {
  const { manager, js } = await filled(client);
  await manager.consumers.add("S", { durable_name: "C", ack_policy: AckPolicy.Explicit });
  const consumer = await js.consumers.get("S", "C");
  const received = [];
  for await (const message of await consumer.fetch({ max_messages: 4, expires: 5000 })) {
    received.push(message.string());
    assert.ok(await message.ackAck());
  }
  const messages = await consumer.consume({ max_messages: 2 });
  for await (const message of messages) {
    received.push(message.string());
    await message.ackAck();
    if (message.info.pending === 0) break;
  }
  assert.deepEqual(received, [..."0123456789"]);
  const info = await consumer.info();
  assert.deepEqual([info.ack_floor.stream_seq, info.num_ack_pending, info.num_pending], [10, 0, 0]);
}, connect));

test("an ordered consumer reads what it is to in order", withServer(async (client) => {
  const { js } = await filled(client);
  const consumer = await js.consumers.get("S", { filter_subjects: "s.1" });
  const received = [];
  for await (const message of await consumer.consume()) {
    received.push(message.string());
    if (received.length === 5) break;
  }
  assert.deepEqual(received, [..."13579"]);
}, connect));

test("direct gets and batches of them are answered", withServer(async (client) => {
  const { manager } = await filled(client);
  const last = await manager.direct.getMessage("S", { last_by_subj: "s.1" });
  assert.deepEqual([last.seq, last.string()], [10, "9"]);
  const batch = await manager.direct.getBatch("S", { seq: 1, batch: 4, next_by_subj: "s.0" });
  const got = [];
  for await (const message of batch) got.push(message.seq);
  assert.deepEqual(got, [1, 3, 5, 7]);
  const lasts = [];
  for await (const message of await manager.direct.getLastMessagesFor("S", { multi_last: ["s.0", "s.1"] })) {
    lasts.push(message.seq);
  }
  assert.deepEqual(lasts, [9, 10]);
}, connect));

test("a consumer is paused and resumed", withServer(async (client) => {
  const { manager, js } = await filled(client);
  await manager.consumers.add("S", { durable_name: "C", ack_policy: AckPolicy.Explicit });
  const paused = await manager.consumers.pause("S", "C", new Date(Date.now() + 3_600_000));
  assert.equal(paused.paused, true);
  const consumer = await js.consumers.get("S", "C");
  assert.equal(await consumer.next({ expires: 1000 }), null);
  assert.equal((await manager.consumers.resume("S", "C")).paused, false);
  assert.equal((await consumer.next({ expires: 5000 })).seq, 1);
}, connect));

test("of those in a priority group others are served when enough waits", withServer(async (client) => {
  const { manager, js } = await filled(client, 1);
  await manager.consumers.add("S", {
    durable_name: "C",
    ack_policy: AckPolicy.Explicit,
    priority_groups: ["g"],
    priority_policy: "overflow",
  });
  const consumer = await js.consumers.get("S", "C");
  const few = await consumer.fetch({ max_messages: 1, expires: 1000, group: "g", min_pending: 5 });
  for await (const _ of few) assert.fail("there are not that many");
  for (let number = 0; number < 5; number += 1) await js.publish("s.more", `${number}`);
  const many = await consumer.fetch({ max_messages: 1, expires: 5000, group: "g", min_pending: 5 });
  let received = 0;
  for await (const _ of many) received += 1;
  assert.equal(received, 1);
}, connect));

test("an atomic batch is stored as a whole", withServer(async (client) => {
  const { manager } = await filled(client, 0, { allow_atomic: true });
  const send = (sequence, commit = false) => {
    const block = headers();
    block.set("Nats-Batch-Id", "one");
    block.set("Nats-Batch-Sequence", `${sequence}`);
    if (commit) block.set("Nats-Batch-Commit", "1");
    return client.request("s.batch", `${sequence}`, { headers: block, timeout: 5000 });
  };
  assert.equal((await send(1)).data.length, 0);
  assert.equal((await manager.streams.info("S")).state.messages, 0);
  const ack = (await send(2, true)).json();
  assert.deepEqual([ack.batch, ack.count, ack.seq], ["one", 2, 2]);
}, connect));
