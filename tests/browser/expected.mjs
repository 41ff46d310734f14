// What every client library must report for every shape of the backend's answer: the true code, the true message, the
// messages that came before. Sources: grpc/grpc `doc/statuscodes.md`, `doc/http-grpc-status-mapping.md` and
// `doc/PROTOCOL-HTTP2.md` ("Errors").
//
// `unary`/`stream`: texts that arrive; absent: that kind is not asked. For a failed unary call no library hands out texts.
// `message`: a string, exact; a RegExp for words of the proxy's own; absent: empty or of no matter (OK).
// `anyError`: the connection is cut inside a message: each library words that in its own way, but none may call it OK.

import { LARGE } from "./backend.mjs";

const none = { unary: [], stream: [] };
const first = { unary: [], stream: ["first"] };

export const expected = {
  ok: { code: 0, unary: ["ok 1"], stream: ["ok 1", "ok 2", "ok 3"] },
  "ok, no message": { code: 0, stream: [] },
  "ok, empty message": { code: 0, unary: [""], stream: [""] },
  "ok, 1 MiB message": { code: 0, unary: ["x".repeat(LARGE)], stream: ["x".repeat(LARGE)] },
  "ok, 1000 messages": { code: 0, stream: Array.from({ length: 1000 }, (_, i) => String(i + 1)) },
  "ok, torn bytes": { code: 0, unary: ["torn"], stream: ["torn"] },
  "ok, gzip unasked": { code: 0, unary: ["packed"], stream: ["packed"] },
  metadata: {
    code: 0, unary: ["metadata"], stream: ["metadata"],
    headers: { "x-asked": "from the page", "x-head": "first" }, trailers: { "x-tail": "last" },
  },

  "trailers-only": { code: 5, message: "no such ship", ...none, trailers: { "x-tail": "last" } },
  "head, then error": { code: 7, message: "not your ship", ...none },
  "error after a message": { code: 9, message: "the tide is out", ...first },
  "error without message": { code: 16, ...none },
  "unicode message": { code: 6, message: "Grüße, 100 % 船", ...none },
  "stray %": { code: 8, message: "100% full, %zz, %2", ...none },
  "broken utf-8 escape": { code: 8, message: "a\ufffdb", ...none },
  "error details": { code: 3, message: "look closer", ...none, details: "wharf.Why" },

  "no trailers": { code: 13, message: /./, ...first },
  "head alone": { code: 2, message: /./, ...none },
  "reset, no head": { code: 8, message: /./, ...none },
  "reset after head": { code: 13, message: /./, ...none },
  "reset after a message": { code: 7, message: /./, ...first },
  "reset inside a message": { anyError: true, ...none },
  "killed, no head": { code: 14, message: /./, ...none },
  "killed after head": { code: 14, message: /./, ...none },
  "killed after a message": { code: 14, message: /./, ...first },
  "killed inside a message": { anyError: true, ...none },
  "killed inside a prefix": { anyError: true, ...first },
  "killed inside the second message": { anyError: true, ...first },

  "503 text/plain": { code: 14, message: /upstream connect error/, ...none },
  "502 text/html": { code: 14, message: /Bad Gateway/, ...none },
  "429 text/plain": { code: 14, message: /slow down/, ...none },
  "429 with grpc-status 8": { code: 8, message: "quota", ...none },
  "401 with grpc-status 16": { code: 16, message: "who are you", ...none },
  "403 text/plain": { code: 7, message: /no/, ...none },
  "404 text/html": { code: 12, message: /Not Found/, ...none },
  "200 text/html": { code: 2, message: /Welcome/, ...none },

  ...Object.fromEntries(Array.from({ length: 16 }, (_, i) => [`status ${i + 1}`, { code: i + 1, message: `status ${i + 1}`, unary: [] }])),
};

/** Nothing listens where the backend should be. */
export const backendDown = { code: 14, message: /./, ...none };

/** The page may not call: the browser itself refuses, and tells the page nothing. */
export const originNotAllowed = { anyError: true, ...none };

/** kill -9 of the backend after message 37 of 100. */
export const killedAt37 = { code: 14, message: /./, stream: Array.from({ length: 37 }, (_, i) => String(i + 1)) };

/**
 * What is left of an expectation for a library that is known to lose something, whatever the proxy does.
 *
 * - protobuf-ts hands out `grpc-message` as it stands on the wire, %-encoded.
 * - grpc-web in binary mode may read an answer only when it is whole, so that a cut takes the messages before it along.
 */
export function forLibrary(library, want) {
  const own = { ...want };
  if (library.startsWith("protobuf-ts") && typeof want.message === "string") own.message = percentEncoded(want.message);
  if (library === "grpc-web" && want.anyError) own.mayLackTexts = true;
  return own;
}

function percentEncoded(text) {
  return Array.from(new TextEncoder().encode(text), (byte) =>
    byte < 0x20 || byte > 0x7e || byte === 0x25 ? `%${byte.toString(16).toUpperCase().padStart(2, "0")}` : String.fromCharCode(byte),
  ).join("");
}

/** What is wrong with what a library saw; empty if nothing is. */
export function faults(want, kind, seen) {
  const wrong = [];
  const check = (name, holds, got) => holds || wrong.push(`${name}: ${JSON.stringify(got)?.slice(0, 200)}`);
  check("no end", seen.ends >= 1, seen.ends);
  check("more than one end", seen.ends <= 1, seen.ends);
  if (want.anyError) check("taken for whole", seen.code !== 0, seen.code);
  else check(`code, not ${want.code}`, seen.code === want.code, seen.code);
  if (want.message instanceof RegExp) check(`message, not ${want.message}`, want.message.test(decoded(seen.message)), seen.message);
  else if (want.message !== undefined) check(`message, not "${want.message}"`, seen.message === want.message, seen.message);
  const texts = want[kind];
  const failedUnary = kind === "unary" && want.code !== 0;
  const whole = want.mayLackTexts ? texts.slice(0, seen.texts.length) : texts;
  if (!failedUnary) check(`${texts.length} messages`, same(seen.texts, whole), seen.texts.length === texts.length ? seen.texts : seen.texts.length);
  for (const where of ["headers", "trailers"]) {
    for (const [name, value] of Object.entries(want[where] ?? {})) {
      check(`${where}' ${name}, not "${value}"`, seen[where][name] === value, seen[where]);
    }
  }
  if (want.details) check("details", JSON.stringify([seen.details, seen.trailers]).length > 0 && hasDetails(want.details, seen), [seen.details, seen.trailers]);
  return wrong;
}

function hasDetails(type, seen) {
  if (seen.details) return seen.details.includes(type);
  const raw = seen.trailers["grpc-status-details-bin"];
  if (raw === undefined) return false;
  const bytes = /^[\d,]+$/.test(raw) ? Buffer.from(raw.split(",").map(Number)) : Buffer.from(raw, "base64");
  return bytes.includes(type);
}

function decoded(message) {
  try {
    return decodeURIComponent(message);
  } catch {
    return message;
  }
}

function same(a, b) {
  return a.length === b.length && a.every((text, i) => text === b[i]);
}
