// A headless browser that opens one page, and the small web server that the page comes from.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

const FILES = {
  "/": ["page.html", "text/html"],
  "/page.js": ["page.js", "text/javascript"],
  "/nats.js": ["node_modules/nats.ws/esm/nats.js", "text/javascript"],
};

async function body(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return Buffer.concat(pieces).toString();
}

// Serves the page, and says what it reports.
class Site {
  async start() {
    this.outcome = new Promise((resolve) => {
      this.web = createServer(async (request, response) => {
        const file = FILES[new URL(request.url, "http://site").pathname];
        if (request.method === "POST") {
          resolve(JSON.parse(await body(request)));
          response.end();
        } else if (file) {
          response.setHeader("content-type", file[1]);
          response.end(await readFile(new URL(file[0], import.meta.url)));
        } else {
          response.writeHead(404).end();
        }
      });
    });
    this.web.listen(0, "127.0.0.1");
    await once(this.web, "listening");
    this.origin = `http://127.0.0.1:${this.web.address().port}`;
  }
}

// Starts a site; `use` is given its origin and a function that opens the page with a query and says what came out.
export async function withSite(use) {
  const site = new Site();
  await site.start();
  const profile = await mkdtemp(join(tmpdir(), "browser-"));
  let browser;
  const open = async (query) => {
    const url = `${site.origin}/?${new URLSearchParams(query)}`;
    const args = [
      "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
      "--ignore-certificate-errors", `--user-data-dir=${profile}`, url,
    ];
    browser = spawn("chromium", args, { stdio: "ignore", detached: true });
    const ended = once(browser, "exit").then(() => { throw new Error("the browser ended"); });
    return Promise.race([site.outcome, ended]);
  };
  try {
    return await use(site.origin, open);
  } finally {
    if (browser) {
      const gone = once(browser, "exit");
      // It has processes of its own.
      process.kill(-browser.pid, "SIGKILL");
      await gone;
    }
    site.web.closeAllConnections();
    site.web.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}
