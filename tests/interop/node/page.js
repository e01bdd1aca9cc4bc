// Runs in a browser: does with the official client what the query names, and tells the page's own server how it went.

import { connect, headers, StringCodec } from "/nats.js";

const text = StringCodec();
const query = new URLSearchParams(location.search);

async function messages(client) {
  const subscription = client.subscribe("greet.*", { max: 1 });
  const sent = headers();
  sent.append("Kind", "wave");
  client.publish("greet.joe", text.encode("hello"), { headers: sent });
  for await (const message of subscription) {
    return [message.subject, text.decode(message.data), message.headers.get("Kind")];
  }
}

async function requests(client) {
  client.subscribe("upper", {
    callback: (_error, message) => message.respond(text.encode(text.decode(message.data).toUpperCase())),
  });
  const reply = await client.request("upper", text.encode("abc"), { timeout: 5000 });
  return text.decode(reply.data);
}

// A payload that one frame of the browser's does not carry, and that compresses.
async function large(client) {
  const payload = "0123456789".repeat(50_000);
  const subscription = client.subscribe("large", { max: 1 });
  client.publish("large", text.encode(payload));
  for await (const message of subscription) return text.decode(message.data) === payload;
}

async function stream(client) {
  const manager = await client.jetstreamManager();
  await manager.streams.add({ name: "ORDERS", subjects: ["orders.*"] });
  const jetstream = client.jetstream();
  const acks = [];
  for (const id of ["1", "2", "3"]) acks.push((await jetstream.publish(`orders.${id}`, text.encode(id))).seq);
  await manager.consumers.add("ORDERS", { durable_name: "work", ack_policy: "explicit" });
  const consumer = await jetstream.consumers.get("ORDERS", "work");
  const received = [];
  for await (const message of await consumer.fetch({ max_messages: 3, expires: 5000 })) {
    received.push(text.decode(message.data));
    await message.ackAck();
  }
  return { acks, received, pending: (await consumer.info()).num_ack_pending };
}

async function buckets(client) {
  const bucket = await client.jetstream().views.kv("settings");
  await bucket.put("colour", text.encode("blue"));
  await bucket.put("colour", text.encode("green"));
  const entry = await bucket.get("colour");
  return [entry.string(), entry.revision];
}

async function run() {
  const client = await connect({
    servers: query.get("servers"),
    user: query.get("user") ?? undefined,
    pass: query.get("pass") ?? undefined,
    reconnect: false,
    timeout: 5000,
  });
  const result = {
    messages: await messages(client),
    requests: await requests(client),
    large: await large(client),
    stream: await stream(client),
    buckets: await buckets(client),
  };
  await client.close();
  return result;
}

const outcome = await run().then((result) => ({ result }), (error) => ({ error: `${error.code ?? error}` }));
await fetch("/outcome", { method: "POST", body: JSON.stringify(outcome) });
