// Five gRPC-Web libraries in a real browser, wharf, and a backend that ends its calls in every possible way.
//
//   node run.mjs [--only matrix,cors,kill,cancel,demo] [--screenshots DIR] [--verbose]
//
// Prints a table and ends with `N passed, N failed`; the exit code says the same. WHARF_BIN names the program under test.

import { execFile } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { startBackend } from "./backend.mjs";
import { backendDown, expected, faults, forLibrary, killedAt37, originNotAllowed } from "./expected.mjs";
import { freePort, servePage, start, startBrowser, startRelay, startWharf, startWharfWith, stop } from "./parts.mjs";

const { values: flags } = parseArgs({
  options: { only: { type: "string" }, screenshots: { type: "string" }, verbose: { type: "boolean", default: false } },
});
const groups = { matrix, cors, kill, cancel, demo };
const chosen = flags.only?.split(",") ?? Object.keys(groups);

/** What failed, in words; and how many checks passed. */
const failures = [];
let passed = 0;

function check(name, wrong) {
  if (wrong.length === 0) passed += 1;
  else failures.push(`${name}\n      ${wrong.join("\n      ")}`);
  if (flags.verbose) console.log(`${wrong.length ? "✖" : "✓"} ${name}`);
  return wrong.length === 0;
}

for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(signal, () => process.exit(1));
setTimeout(() => {
  console.log("0 passed, 1 failed: no end within ten minutes");
  process.exit(1);
}, 600_000).unref();

const browser = await startBrowser();
const site = await servePage();
try {
  for (const name of chosen) {
    const began = performance.now();
    await groups[name]().catch((error) => check(`${name}: ran to its end`, [error.stack]));
    console.log(`\n${name}: ${((performance.now() - began) / 1000).toFixed(1)} s\n`);
  }
} finally {
  await browser.close();
  site.close();
}
for (const failure of failures) console.log(`  ✖ ${failure}`);
console.log(`${passed} passed, ${failures.length} failed`);
process.exit(failures.length === 0 && passed > 0 ? 0 : 1);

// ---- the matrix: every shape, every library, unary and streaming

async function matrix() {
  const backend = await startBackend();
  const wharf = await startWharf(["--backend", `127.0.0.1:${backend.port}`, "--listen", "127.0.0.1:0", "--allow-origin", site.url]);
  const down = await startWharf(["--backend", `127.0.0.1:${await freePort()}`, "--listen", "127.0.0.1:0", "--allow-origin", site.url]);
  const closed = await startWharf(["--backend", `127.0.0.1:${backend.port}`, "--listen", "127.0.0.1:0", "--allow-origin", "https://other.example"]);
  const rows = Object.entries(expected).map(([shape, want]) => [shape, want, wharf]);
  rows.push(["backend down", backendDown, down], ["origin not allowed", originNotAllowed, closed]);
  await everyLibrary("", site.url, rows);
  await Promise.all([wharf.stop(), down.stop(), closed.stop()]);
  backend.close();
}

/** Each row, `[shape, want, wharf]`, from a page at `url` by every library, as a table. */
async function everyLibrary(where, url, rows, ask = {}) {
  const { page, errors } = await openPage(url);
  if (ask.cookie) await page.context().addCookies(rows.map(([, , { url }]) => ({ name: "who", value: "me", url })));
  const libraries = await page.evaluate(() => wharfTest.libraries);
  const width = Math.max(...libraries.map((name) => name.length)) + 2;
  const row = (name, cells) => console.log(name.padEnd(34) + cells.map((cell) => cell.padEnd(width)).join(""));
  row(where || "shape", libraries);
  for (const [shape, want, target] of rows) {
    const cells = [];
    for (const library of libraries) {
      const marks = [];
      for (const kind of ["unary", "stream"].filter((kind) => want[kind])) {
        const seen = await callFrom(page, { library, kind, shape, baseUrl: target.url, metadata: { "x-ask": "from the page" }, ...ask });
        marks.push(check(`${where}${shape}, ${library}, ${kind}`, faults(forLibrary(library, want), kind, seen)) ? "✓" : "✖");
      }
      cells.push(marks.join(" "));
    }
    row(shape, cells);
  }
  check(`${where}no script error while the libraries ran`, errors);
  await page.context().close();
}

// ---- CORS as a policy: who may call, with what, and what everybody is told who may not

async function cors() {
  const backend = await startBackend();
  const policy = (lines, port = backend.port) =>
    startWharfWith(`[[route]]\npath_prefix = "/"\nbackend = "shapes"\n[backend.shapes]\nendpoints = ["127.0.0.1:${port}"]\n[cors]\n${lines}\n`);
  const { port } = new URL(site.url);
  // Chromium resolves every name below localhost to this machine.
  const [below, bare] = [`http://app.localhost:${port}`, `http://localhost:${port}`];
  const own = `allow_origins = ["${site.url}"]\n`;

  const withCookies = await policy(`${own}allow_credentials = true`);
  const withCookiesDown = await policy(`${own}allow_credentials = true`, await freePort());
  const rows = Object.entries(expected).map(([shape, want]) => [shape, want, withCookies]);
  const [metadata] = rows.filter(([shape]) => shape === "metadata");
  metadata[1] = { ...metadata[1], headers: { ...metadata[1].headers, "x-cookie": "who=me" } };
  rows.push(["backend down", backendDown, withCookiesDown]);
  await everyLibrary("with credentials: ", site.url, rows, { credentials: "include", cookie: true });
  await Promise.all([withCookies.stop(), withCookiesDown.stop()]);

  const anybody = await policy(`allow_origins = ["*"]`);
  const wildcard = await policy(`allow_origins = ["http://*.localhost:${port}"]\nallow_credentials = true`);
  const two = (target) => ["ok", "metadata", "trailers-only"].map((shape) => [shape, expected[shape], target]);
  await everyLibrary("page below a wildcard: ", below, two(wildcard), { credentials: "include" });
  await everyLibrary("page of anybody: ", below, two(anybody));
  const refused = (target) => [["ok", originNotAllowed, target]];
  await everyLibrary("the wildcard's own domain: ", bare, refused(wildcard));
  await tells("the wildcard's own domain", wildcard, "OPTIONS", "403", "cors_origin", `origin ${bare} is not allowed`, `add "${bare}" to allow_origins in [cors]`);
  await everyLibrary("anybody with credentials: ", below, refused(anybody), { credentials: "include" });

  const frame = `${site.url}/sandboxed`;
  await everyLibrary("page without an origin: ", frame, refused(wildcard));
  await tells("page without an origin", wildcard, "OPTIONS", "403", "cors_origin", "origin null is not allowed", `"null" in allow_origins in [cors]`);
  await everyLibrary("page without an origin, anybody may call: ", frame, two(anybody));

  const strict = await policy(`${own}allow_headers = ["x-own"]\nexpose_headers = ["x-head"]`);
  await consoleSays("a field that is not listed", site.url, strict, { "x-ask": "1" }, /x-ask is not allowed by Access-Control-Allow-Headers/);
  await tells("a field that is not listed", strict, "OPTIONS", "204", "cors_header", `asks to send "x-ask"`, `add "x-ask" there, or write allow_headers = "mirror", in [cors]`);
  await consoleSays("an origin that is not allowed", below, strict, {}, /No 'Access-Control-Allow-Origin' header/);
  const { page } = await openPage(site.url);
  const seen = await callFrom(page, { library: "connect-web", kind: "unary", shape: "metadata", baseUrl: strict.url, metadata: { "x-own": "1" } });
  check("a field that is listed may be sent", seen.code === 0 ? [] : [seen.message]);
  check("what is not to be exposed is not", seen.headers["x-head"] === "first" && !("x-asked" in seen.headers) ? [] : [JSON.stringify(seen.headers)]);
  // Lines come in their order and a moment later than what they tell of.
  const lines = (verb) => strict.lines.filter((line) => line.includes(verb)).length;
  await eventually(() => lines("POST") === 1);
  const before = lines("OPTIONS");
  for (let n = 0; n < 3; n++) {
    await callFrom(page, { library: "connect-web", kind: "unary", shape: "ok", baseUrl: strict.url, metadata: { "x-own": "1" } });
  }
  await eventually(() => lines("POST") === 4);
  const asked = lines("OPTIONS") - before;
  check("a browser that was allowed remembers it", asked === 0 ? [] : [`${asked} preflights more`]);
  await page.context().close();

  // No browser asks before a WebSocket, so wharf looks at its origin.
  const { page: stranger } = await openPage(below);
  await stranger.evaluate(
    (url) => new Promise((resolve) => Object.assign(new WebSocket(`${url}/wharf.shapes.v1.Shapes/Unary`, "grpc-websockets"), { onerror: resolve, onopen: resolve })),
    strict.url.replace("http:", "ws:"),
  );
  await stranger.context().close();
  await settled();
  await tells("a WebSocket of a page that may not call", strict, "GET", "403", "cors_origin", `origin ${below} is not allowed`, `add "${below}" to allow_origins in [cors]`);
  await Promise.all([anybody.stop(), wildcard.stop(), strict.stop()]);
  backend.close();
}

/** Whether that comes to be so within five seconds. */
async function eventually(holds) {
  for (let n = 0; !holds() && n < 1_000; n++) await sleep(5);
  return holds();
}

/** One refusal is two lines: verb, status, word and cause, and below it the cure. */
async function tells(name, wharf, verb, status, word, cause, cure) {
  const parts = [verb, `refused ${status}`, `${word}: `, cause];
  const told = await eventually(() => {
    const at = wharf.lines.findLastIndex((line) => parts.every((part) => line.includes(part)));
    return at >= 0 && wharf.lines[at + 1]?.trim().endsWith(cure);
  });
  check(`${name}: the log has cause and cure`, told ? [] : [`${parts.join(" … ")} / ${cure}`, ...wharf.lines.slice(-6)]);
}

/** What Chromium writes for the page's author when a call from there is refused. */
async function consoleSays(name, url, wharf, metadata, words) {
  const { page } = await openPage(url);
  const said = [];
  page.on("console", (message) => said.push(message.text()));
  const seen = await callFrom(page, { library: "connect-web", kind: "unary", shape: "ok", baseUrl: wharf.url, metadata });
  await settled();
  check(`${name}: the call fails`, seen.code === 0 ? ["it was taken for whole"] : []);
  check(`${name}: the console names it`, said.some((text) => words.test(text)) ? [] : said);
  await page.context().close();
}

/** Consoles and logs are written a moment later. */
function settled() {
  return sleep(200);
}

// ---- kill -9 of the backend at message 37 of 100

async function kill() {
  const { page } = await openPage(site.url);
  for (const library of await page.evaluate(() => wharfTest.libraries)) {
    const { child, match, lines } = await start(process.execPath, [fileURLToPath(new URL("backend.mjs", import.meta.url))], /^port (\d+)$/);
    const wharf = await startWharf(["--backend", `127.0.0.1:${match[1]}`, "--listen", "127.0.0.1:0", "--allow-origin", site.url]);
    const running = callFrom(page, { library, kind: "stream", shape: "count to 100, stop at 37", baseUrl: wharf.url });
    for (let n = 0; !lines.includes("sent 37") && n < 1_000; n++) await sleep(5);
    await sleep(50);
    child.kill("SIGKILL");
    const seen = await running;
    const ok = check(`kill -9 at message 37, ${library}`, faults(forLibrary(library, killedAt37), "stream", seen));
    console.log(`kill -9 at 37 of 100   ${library.padEnd(18)} ${ok ? "✓" : "✖"} ${seen.texts.length} messages, code ${seen.code}: ${seen.message}`);
    await stop(child, "SIGKILL");
    await wharf.stop();
  }
  await page.context().close();
}

// ---- a closed tab is a cancelled call

// How long a browser takes to close a tab is its own affair, so both are measured: from the click, and from the moment in
// which the browser lets go of its connection (a relay between the two sees it).

async function cancel() {
  let arrived = () => {};
  const backend = await startBackend({ onStream: (stream) => arrived(stream) });
  const wharf = await startWharf(["--backend", `127.0.0.1:${backend.port}`, "--listen", "127.0.0.1:0", "--allow-origin", site.url]);
  const relay = await startRelay(wharf.url);
  const { page: first } = await openPage(site.url);
  const libraries = await first.evaluate(() => wharfTest.libraries);
  const context = first.context();
  // Binary mode of grpc-web shows nothing before the end; its messages cannot say that the stream is under way.
  const streaming = libraries.filter((name) => name !== "grpc-web");
  for (const [what, leave] of Object.entries({
    "tab closed": (page) => page.close(),
    "call aborted": (page) => page.evaluate(() => running.abort()),
  })) {
    const times = { "after the click": [], "after the browser let go": [] };
    for (let n = 0; n < 20; n++) {
      const page = await context.newPage();
      await page.goto(site.url);
      const stream = new Promise((resolve) => (arrived = resolve));
      await page.evaluate(
        ([library, baseUrl]) =>
          new Promise((resolve) => {
            globalThis.running = new AbortController();
            wharfTest.call({ library, kind: "stream", shape: "endless", baseUrl, progress: resolve, signal: running.signal }).catch(() => {});
          }),
        [streaming[n % streaming.length], relay.url],
      );
      const upstream = await stream;
      const ended = new Promise((resolve) => upstream.once("close", () => resolve([performance.now(), upstream.rstCode])));
      const letGo = relay.nextLeft();
      const began = performance.now();
      const leaving = leave(page);
      const [at, code] = await Promise.race([ended, sleep(5_000).then(() => [Infinity, null])]);
      times["after the click"].push(at - began);
      times["after the browser let go"].push(at - (await Promise.race([letGo, sleep(5_000).then(() => began)])));
      check(`${what}, ${streaming[n % streaming.length]}: the backend's stream is reset with CANCEL`, code === 8 ? [] : [`it ended with ${code}`]);
      await leaving;
      if (!page.isClosed()) await page.close();
    }
    for (const [since, taken] of Object.entries(times)) {
      taken.sort((a, b) => a - b);
      const median = (taken[9] + taken[10]) / 2;
      console.log(`${what}: backend cancelled ${median.toFixed(1)} ms ${since} (median of 20; ${taken[0].toFixed(1)} to ${taken[19].toFixed(1)} ms)`);
      if (since === "after the browser let go") check(`${what}: the backend hears of it within 50 ms (median of 20)`, median <= 50 ? [] : [`${median.toFixed(1)} ms`]);
    }
  }
  await context.close();
  relay.close();
  await wharf.stop();
  backend.close();
}

// ---- the page of `wharf demo`

async function demo() {
  const wharf = await startWharf(["demo", "--listen", "127.0.0.1:0"]);
  if (flags.screenshots) await mkdir(flags.screenshots, { recursive: true });
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 390]) {
      const { page, errors } = await openPage(wharf.url, { viewport: { width, height: width === 390 ? 844 : 900 }, colorScheme });
      await demoPage(page, `demo ${width} px ${colorScheme}`, errors, (name) =>
        flags.screenshots && page.screenshot({ path: `${flags.screenshots}/demo-${width}-${colorScheme}-${name}.png`, fullPage: true }),
      );
      await page.context().close();
    }
  }
  await demoNarrow(wharf);
  await demoWithoutScript(wharf);
  await demoCurl(wharf);
  await wharf.stop();
}

async function demoPage(page, where, errors, shoot) {
  const status = page.locator("#status");
  const ends = (words) => status.filter({ hasText: words }).waitFor({ timeout: 5_000 });
  const step = async (name, act) => check(`${where}: ${name}`, await act().then((wrong) => wrong ?? [], (error) => [error.message]));

  await step("it has said something by itself when it is open", () => ends("0 OK"));
  await shoot("open");
  await step("text mode works", async () => {
    await page.getByLabel("text (base64)").check();
    await page.getByLabel("text", { exact: true }).first().fill("Grüße, Ærø");
    await page.getByRole("button", { name: "Say it" }).click();
    await ends("0 OK");
    const log = await page.locator("#log").innerText();
    const type = await page.locator("#call-type").innerText();
    return [...(log.includes("Grüße, Ærø") ? [] : [log]), ...(type.includes("grpc-web-text") ? [] : [type])];
  });
  await step("messages of a stream show as they arrive, and the status at its end", async () => {
    await page.getByLabel("count").fill("6");
    await page.getByLabel("every").fill("120");
    await page.getByRole("button", { name: "Start" }).click();
    await page.locator("#log .said", { hasText: "#2" }).waitFor({ timeout: 5_000 });
    const early = await status.innerText();
    if (early.includes("OK")) return [`the status stood before the end: ${early}`];
    await ends("6 messages");
    await ends("0 OK");
  });
  await shoot("stream");
  await page.getByLabel("binary").check();
  await step("a stream can be cancelled from the keyboard", async () => {
    await page.getByLabel("count").fill("1000");
    await page.getByRole("button", { name: "Start" }).focus();
    await page.keyboard.press("Enter");
    await page.locator("#log .said", { hasText: "#3" }).waitFor({ timeout: 5_000 });
    await page.getByRole("button", { name: "Cancel" }).focus();
    await page.keyboard.press("Enter");
    await ends("1 CANCELLED");
  });
  await step("an error is readable: number, name, message, trailers", async () => {
    await page.getByRole("button", { name: "Fail" }).click();
    await ends("8 RESOURCE_EXHAUSTED");
    await ends("100 % of the berths are taken, try pier “Ø”");
    await page.locator("#trailers", { hasText: "demo-trailer" }).waitFor({ timeout: 1_000 });
  });
  await shoot("error");
  await step("it says what to do next", async () => {
    const words = await page.locator("main").innerText();
    return ["wharf --backend localhost:50051", "createGrpcWebTransport", "curl"].filter((word) => !words.includes(word));
  });
  await step("nothing scrolls sideways", async () => {
    await page.locator("details summary").click();
    const [inner, outer] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    return inner <= outer ? [] : [`${inner} px in ${outer} px`];
  });
  await step("every control has a name and a size that a finger can hit", () =>
    page.evaluate(() => {
      const wrong = [];
      for (const control of document.querySelectorAll("button, input, select")) {
        const name = control.labels?.[0]?.innerText || control.innerText || control.getAttribute("aria-label");
        const { height } = (control.labels?.[0]?.contains(control) ? control.labels[0] : control).getBoundingClientRect();
        if (!name) wrong.push(`no name: ${control.outerHTML}`);
        if (height < 24) wrong.push(`${height} px: ${control.outerHTML}`);
      }
      return wrong;
    }),
  );
  check(`${where}: no script error, nothing in the console`, errors);
}

async function demoNarrow(wharf) {
  const { page } = await openPage(wharf.url, { viewport: { width: 380, height: 800 }, reducedMotion: "reduce" });
  const badge = page.locator("#status .badge");
  const ends = () => badge.filter({ hasText: "0 OK" }).waitFor({ timeout: 10_000 });
  const wholeInWindow = async () => {
    const { top, bottom } = await page.evaluate(() => document.querySelector("#status .badge").getBoundingClientRect().toJSON());
    return top >= 0 && bottom <= 800 ? [] : [`the badge is from ${top} px to ${bottom} px`];
  };
  await ends();
  check("demo 380 px: nobody is taken to an answer that they did not ask for", (await page.evaluate(() => scrollY)) === 0 ? [] : ["it scrolled"]);
  await page.getByLabel("every").fill("20");
  await page.getByRole("button", { name: "Start" }).click();
  await page.locator("#log .said", { hasText: "#15" }).waitFor({ timeout: 5_000 });
  check("demo 380 px: the status is in sight while a stream comes", await wholeInWindow());
  await ends();
  check("demo 380 px: the status is in sight at the end", await wholeInWindow());
  await page.getByLabel("count").fill("600");
  await page.getByLabel("every").fill("5");
  await page.getByRole("button", { name: "Start" }).click();
  await page.locator("#log .said", { hasText: "#5" }).first().waitFor({ timeout: 5_000 });
  await page.mouse.wheel(0, -5_000);
  await ends();
  check("demo 380 px: whoever scrolls away is not brought back", (await page.evaluate(() => scrollY)) === 0 ? [] : ["it scrolled"]);
  // 600 messages and the trailers.
  const first = await page.locator("#log li").first().innerText();
  check("demo: it says how many frames it does not show", first === "101 earlier ones not shown" ? [] : [first]);
  await page.context().close();
}

async function demoWithoutScript(wharf) {
  const { page } = await openPage(wharf.url, { javaScriptEnabled: false, viewport: { width: 390, height: 844 } });
  const words = await page.locator("body").innerText();
  const missing = ["JavaScript is off", "curl", "wharf --backend localhost:50051", "trailers"].filter((word) => !words.includes(word));
  check("demo without JavaScript: it explains itself", missing);
  check("demo without JavaScript: no dead buttons", (await page.locator("button:visible").count()) === 0 ? [] : ["there are buttons"]);
  if (flags.screenshots) await page.screenshot({ path: `${flags.screenshots}/demo-390-noscript.png`, fullPage: true });
  await page.context().close();
}

async function demoCurl(wharf) {
  const { page } = await openPage(wharf.url);
  const line = await page.locator("pre code", { hasText: "curl -s" }).textContent();
  await page.context().close();
  const { stdout } = await promisify(execFile)("sh", ["-c", line], { timeout: 10_000 });
  const text = stdout.replaceAll(/^\s+/gm, "").replaceAll(/\s+/g, " ");
  const missing = [/002 h i 200 /, /g r p c - s t a t u s : 0/].filter((part) => !part.test(text));
  check("demo: the curl line of the page works", missing.length === 0 ? [] : [line, stdout]);
}

// ---- small things

/** A page in a context of its own, and what went wrong in it. */
async function openPage(url, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.stack ?? String(error)));
  // Where connections are cut and pages refused on purpose Chromium writes so into the console; the demo page has no such excuse.
  if (new URL(url).port !== new URL(site.url).port) page.on("console", (message) => ["error", "warning"].includes(message.type()) && errors.push(message.text()));
  await page.goto(url);
  return { page, errors };
}

function callFrom(page, ask) {
  const late = sleep(10_000).then(() => ({ ends: 0, texts: [], headers: {}, trailers: {}, code: null, message: "no end within 10 s" }));
  const call = page.evaluate((ask) => wharfTest.call(ask), ask);
  return Promise.race([call.catch((error) => ({ ends: 1, texts: [], headers: {}, trailers: {}, code: -1, message: `thrown: ${error.message}` })), late]);
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
