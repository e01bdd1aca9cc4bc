// The official WebSocket client in a headless browser.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { Server } from "./server.mjs";
import { withSite } from "./browser.mjs";

const SOUND = {
  messages: ["greet.joe", "hello", "wave"],
  requests: "ABC",
  large: true,
  stream: { acks: [1, 2, 3], received: ["1", "2", "3"], pending: 0 },
  buckets: ["green", 2],
};

// What a page of that query sees of a server with that `websocket` block.
function browse(block, query) {
  return withSite(async (origin, open) => {
    const server = await Server.start(async (directory) => {
      const config = join(directory, "server.conf");
      await writeFile(config, `websocket { listen: "127.0.0.1:-1", ${await block(directory, origin)} }\n`);
      return ["-c", config];
    });
    try {
      return await open({ servers: server.websocket, ...query });
    } finally {
      await server.remove();
    }
  });
}

test("the official client works from a page in a browser", async () => {
  const block = (_directory, origin) => `no_tls: true, compression: true, allowed_origins: ["${origin}"]`;
  assert.deepEqual(await browse(block, {}), { result: SOUND });
});

test("a page does the same over TLS with a user of the listener", async () => {
  const block = async (directory) => {
    const [cert, key] = ["cert.pem", "key.pem"].map((name) => join(directory, name));
    await promisify(execFile)("openssl", [
      "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
      "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert,
    ]);
    return `tls { cert_file: "${cert}", key_file: "${key}" }, authorization { username: "page", password: "secret" }`;
  };
  assert.deepEqual(await browse(block, { user: "page", pass: "secret" }), { result: SOUND });
});

test("a page from somewhere else is refused", async () => {
  const block = () => 'no_tls: true, allowed_origins: ["http://127.0.0.1:1"]';
  const { result, error } = await browse(block, {});
  assert.equal(result, undefined);
  assert.ok(error);
});
