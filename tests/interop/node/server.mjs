// The server binary as a child process, for tests with stock clients. `NATS_SERVER` names the binary.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { connect } from "nats";

const LISTENING = /Listening for client connections on \S*:(\d+)/;
const WEBSOCKET = /Listening for websocket clients on (wss?:\/\/\S+)/;

export class Server {
  // `more` says which further arguments it is started with, given the directory that it may use.
  static async start(more = () => []) {
    const server = new Server();
    server.directory = await mkdtemp(join(tmpdir(), "interop-"));
    server.port = -1;
    server.more = await more(server.directory);
    await server.start();
    return server;
  }

  async start() {
    const args = ["-a", "127.0.0.1", "-p", `${this.port}`, "-js", "-sd", join(this.directory, "store"), ...this.more];
    this.process = spawn(process.env.NATS_SERVER, args, { stdio: ["ignore", "ignore", "pipe"] });
    const lines = createInterface({ input: this.process.stderr });
    await new Promise((resolve, reject) => {
      this.process.once("exit", (status) => reject(new Error(`the server ended with ${status}`)));
      lines.on("line", (line) => {
        const found = LISTENING.exec(line);
        if (found) this.port = Number(found[1]);
        this.websocket = WEBSOCKET.exec(line)?.[1] ?? this.websocket;
        if (line.trimEnd().endsWith("Server is ready")) resolve();
      });
    });
  }

  // `dial` is the `connect` of the packages that a test is about.
  connect(options = {}, dial = connect) {
    return dial({ servers: `127.0.0.1:${this.port}`, ...options });
  }

  async end(signal) {
    const exited = once(this.process, "exit");
    this.process.kill(signal);
    await exited;
    this.process = undefined;
  }

  async remove() {
    if (this.process) await this.end("SIGKILL");
    await rm(this.directory, { recursive: true });
  }
}

// Runs `body` with a server and a client; both are gone afterwards, whatever happened.
export function withServer(body, dial = connect) {
  return async () => {
    const server = await Server.start();
    let client;
    try {
      client = await server.connect({}, dial);
      await body(client, server);
    } finally {
      await client?.close();
      await server.remove();
    }
  };
}
