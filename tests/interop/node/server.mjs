// The server binary as a child process, for tests with stock clients. `NATS_SERVER` names the binary.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { connect } from "nats";

const LISTENING = /Listening for client connections on \S*:(\d+)/;

export class Server {
  static async start() {
    const server = new Server();
    server.directory = await mkdtemp(join(tmpdir(), "interop-"));
    server.port = -1;
    await server.start();
    return server;
  }

  async start() {
    const args = ["-a", "127.0.0.1", "-p", `${this.port}`, "-js", "-sd", join(this.directory, "store")];
    this.process = spawn(process.env.NATS_SERVER, args, { stdio: ["ignore", "ignore", "pipe"] });
    const lines = createInterface({ input: this.process.stderr });
    await new Promise((resolve, reject) => {
      this.process.once("exit", (status) => reject(new Error(`the server ended with ${status}`)));
      lines.on("line", (line) => {
        const found = LISTENING.exec(line);
        if (found) this.port = Number(found[1]);
        if (line.trimEnd().endsWith("Server is ready")) resolve();
      });
    });
  }

  connect(options = {}) {
    return connect({ servers: `127.0.0.1:${this.port}`, ...options });
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
export function withServer(body) {
  return async () => {
    const server = await Server.start();
    let client;
    try {
      client = await server.connect();
      await body(client, server);
    } finally {
      await client?.close();
      await server.remove();
    }
  };
}
