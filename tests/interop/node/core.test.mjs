// Core messaging with the npm client.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ErrorCode, headers, StringCodec } from "nats";
import { withServer } from "./server.mjs";

const text = StringCodec();

test("a message reaches its subscriber with its headers", withServer(async (client) => {
  const subscription = client.subscribe("greet.*", { max: 1 });
  const sent = headers();
  sent.append("Kind", "wave");
  client.publish("greet.joe", text.encode("hello"), { headers: sent });
  for await (const message of subscription) {
    assert.equal(message.subject, "greet.joe");
    assert.equal(text.decode(message.data), "hello");
    assert.equal(message.headers.get("Kind"), "wave");
  }
  assert.equal(subscription.getReceived(), 1);
}));

test("one member of a queue group gets each message", withServer(async (client, server) => {
  const other = await server.connect();
  const members = [client, other].map((each) => each.subscribe("work", { queue: "workers" }));
  await Promise.all([client.flush(), other.flush()]);
  for (let number = 0; number < 50; number += 1) client.publish("work", text.encode(`${number}`));
  await client.flush();
  await other.flush();
  const received = members.map((member) => member.getReceived());
  await other.close();
  assert.equal(received[0] + received[1], 50);
}));

test("a request gets its answer", withServer(async (client) => {
  client.subscribe("upper", {
    callback: (_error, message) => message.respond(text.encode(text.decode(message.data).toUpperCase())),
  });
  const reply = await client.request("upper", text.encode("abc"), { timeout: 5000 });
  assert.equal(text.decode(reply.data), "ABC");
}));

test("a request that nobody answers fails at once", withServer(async (client) => {
  await assert.rejects(client.request("nobody", undefined, { timeout: 5000 }), { code: ErrorCode.NoResponders });
}));

test("draining delivers what was on its way", withServer(async (client, server) => {
  const receiver = await server.connect();
  let count = 0;
  receiver.subscribe("last", { callback: () => { count += 1; } });
  await receiver.flush();
  for (let number = 0; number < 100; number += 1) client.publish("last");
  await client.flush();
  await receiver.drain();
  assert.equal(count, 100);
}));
