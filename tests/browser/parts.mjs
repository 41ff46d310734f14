// The programs and servers that the tests are made of: wharf, the page's own origin, the browser.

import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const here = fileURLToPath(new URL(".", import.meta.url));
const children = new Set();
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));

/** Starts a program; resolves with its first match of `ready` on stdout. `{ child, match, lines }`. */
export function start(program, args, ready, { timeout = 20_000, env = {} } = {}) {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
  children.add(child);
  child.on("exit", () => children.delete(child));
  const lines = [];
  return new Promise((resolve, reject) => {
    const fail = (why) => reject(new Error(`${program} ${args.join(" ")}: ${why}\n${lines.slice(-20).join("\n")}`));
    const late = setTimeout(() => fail("did not come up"), timeout);
    child.on("error", (error) => fail(error.message));
    child.on("exit", (code, signal) => fail(`ended with ${signal ?? code}`));
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        lines.push(line);
        const match = ready.exec(line);
        if (!match || stream === child.stderr) return;
        clearTimeout(late);
        resolve({ child, match, lines });
      });
    }
  });
}

/** Starts wharf; `{ url, lines, stop }`. */
export async function startWharf(args) {
  const program = process.env.WHARF_BIN ?? fileURLToPath(new URL("../../target/debug/wharf", import.meta.url));
  const { child, match, lines } = await start(program, args, /http:\/\/(127\.0\.0\.1:\d+)/, { env: { NO_COLOR: "1" } });
  return { url: `http://${match[1]}`, lines, stop: () => stop(child) };
}

/** Starts wharf with a file of these lines, on a free port. */
export async function startWharfWith(toml) {
  const folder = await mkdtemp(join(tmpdir(), "wharf-browser-"));
  try {
    const file = join(folder, "wharf.toml");
    await writeFile(file, `version = 1\n[[listener]]\naddress = "127.0.0.1:0"\n${toml}`);
    return await startWharf(["run", "-c", file]);
  } finally {
    await rm(folder, { recursive: true });
  }
}

export async function stop(child, signal = "SIGTERM") {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill(signal);
  const late = setTimeout(() => child.kill("SIGKILL"), 3_000);
  await gone;
  clearTimeout(late);
}

/** The origin of the page with the five libraries; `{ url, close }`. */
export async function servePage() {
  const bundle = await build({
    entryPoints: [`${here}clients.js`],
    bundle: true,
    write: false,
    format: "iife",
    platform: "browser",
    logLevel: "warning",
  });
  const script = bundle.outputFiles[0].contents;
  const html = `<!doctype html><meta charset="utf-8"><title>clients</title><link rel="icon" href="data:,"><script src="/clients.js"></script>`;
  const server = createServer((request, response) => {
    const isScript = request.url === "/clients.js";
    response.writeHead(200, { "content-type": isScript ? "text/javascript" : "text/html" });
    response.end(isScript ? script : html);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close().closeAllConnections() };
}

/** A headless Chromium with a profile of its own, which playwright makes and removes. */
export function startBrowser() {
  return chromium.launch({
    handleSIGINT: false,
    handleSIGTERM: false,
    handleSIGHUP: false,
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
}

/** Hands bytes to and fro and notes when the browser closes a connection; `{ url, nextLeft, close }`. */
export async function startRelay(target) {
  const { hostname, port } = new URL(target);
  const waiting = [];
  const server = net.createServer({ noDelay: true }, (client) => {
    const wharf = net.connect({ host: hostname, port, noDelay: true });
    const left = () => {
      const now = performance.now();
      wharf.destroy();
      for (const resolve of waiting.splice(0)) resolve(now);
    };
    client.once("end", left).once("close", left).on("error", left);
    wharf.on("error", () => client.destroy()).on("close", () => client.destroy());
    client.pipe(wharf).pipe(client);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    /** When the browser next closes a connection. */
    nextLeft: () => new Promise((resolve) => waiting.push(resolve)),
    close: () => server.close(),
  };
}

/** A port on which nothing listens. */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}
