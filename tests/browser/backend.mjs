// A gRPC backend that ends its calls in every shape that a real one can, byte by byte over Node's HTTP/2.
//
// `/wharf.shapes.v1.Shapes/{Unary,Stream}` takes one message `{ 1: text }`; the text names the shape. Started as a program it
// prints its port, then a line `sent N` whenever the shape `count to 100, stop at 37` has sent a message.

import http2 from "node:http2";
import net from "node:net";
import { gzipSync } from "node:zlib";

export const LARGE = 1 << 20;
const OK = { "grpc-status": "0" };

/** Starts it; `{ port, onStream, close }`. `onStream(stream, shape)` is called for each call, before it is answered. */
export async function startBackend({ onStream = () => {} } = {}) {
  const sockets = new Map();
  let accepting = null;
  const http = http2.createServer();
  http.on("session", (session) => {
    const socket = accepting;
    sockets.set(session, socket);
    session.on("error", () => {});
    session.on("close", () => sockets.delete(session));
  });
  http.on("sessionError", () => {});
  http.on("stream", (stream, headers) => {
    stream.on("error", () => {});
    const body = [];
    stream.on("data", (chunk) => body.push(chunk));
    stream.on("end", () => {
      const request = Buffer.concat(body);
      const name = stringField(request.subarray(5));
      onStream(stream, name);
      const answer = shapes[name];
      const call = new Call(stream, headers, sockets.get(stream.session));
      if (!isWhole(request) || !answer) call.trailersOnly(3, `the backend got ${request.toString("hex")}`);
      else answer(call);
    });
  });
  const server = net.createServer((socket) => {
    socket.setNoDelay();
    socket.on("error", () => {});
    accepting = socket;
    http.emit("connection", socket);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: server.address().port,
    close() {
      server.close();
      for (const socket of sockets.values()) socket?.destroy();
    },
  };
}

/** One call, and the words in which a shape is told. */
class Call {
  constructor(stream, headers, socket) {
    Object.assign(this, { stream, headers, socket, unary: headers[":path"].endsWith("/Unary") });
  }
  head(fields = {}) {
    this.stream.respond({ ":status": 200, "content-type": "application/grpc+proto", ...fields }, { waitForTrailers: true });
    this.stream.on("wantTrailers", () => this.stream.sendTrailers(this.trailers));
    return this;
  }
  say(text) {
    this.stream.write(envelope(text));
    return this;
  }
  end(trailers) {
    this.trailers = trailers;
    this.stream.end();
  }
  trailersOnly(code, message, more = {}) {
    this.stream.respond(
      { ":status": 200, "content-type": "application/grpc+proto", "grpc-status": code, ...(message && { "grpc-message": escaped(message) }), ...more },
      { endStream: true },
    );
  }
  plain(status, type, text, more = {}) {
    this.stream.respond({ ":status": status, "content-type": type, ...more });
    this.stream.end(text);
  }
  /** Lets what was written reach the proxy, and the proxy's part of it the browser. */
  async settle() {
    await new Promise((resolve) => setTimeout(resolve, 30));
    return this;
  }
}

const shapes = {
  ok: (call) => {
    call.head();
    for (let n = 1; n <= (call.unary ? 1 : 3); n++) call.say(`ok ${n}`);
    call.end(OK);
  },
  "ok, no message": (call) => call.head().end(OK),
  "ok, empty message": (call) => call.head().say("").end(OK),
  "ok, 1 MiB message": (call) => call.head().say("x".repeat(LARGE)).end(OK),
  "ok, 1000 messages": (call) => {
    call.head();
    for (let n = 1; n <= 1000; n++) call.say(String(n));
    call.end(OK);
  },
  "ok, torn bytes": async (call) => {
    call.head();
    for (const byte of envelope("torn")) {
      call.stream.write(Buffer.of(byte));
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    call.end(OK);
  },
  "ok, gzip unasked": (call) => {
    const packed = gzipSync(message("packed"));
    call.head({ "grpc-encoding": "gzip" });
    call.stream.write(Buffer.concat([prefix(1, packed.length), packed]));
    call.end(OK);
  },
  metadata: (call) =>
    call
      .head({ "x-asked": call.headers["x-ask"] ?? "nothing", "x-cookie": call.headers.cookie ?? "none", "x-head": "first" })
      .say("metadata")
      .end({ ...OK, "x-tail": "last" }),
  "trailers-only": (call) => call.trailersOnly(5, "no such ship", { "x-tail": "last" }),
  "head, then error": (call) => call.head().end({ "grpc-status": "7", "grpc-message": "not your ship" }),
  "error after a message": (call) => call.head().say("first").end({ "grpc-status": "9", "grpc-message": "the tide is out" }),
  "error without message": (call) => call.trailersOnly(16, ""),
  "unicode message": (call) => call.trailersOnly(6, "Grüße, 100 % 船"),
  "stray %": (call) => call.trailersOnly(8, "", { "grpc-message": "100% full, %zz, %2" }),
  "broken utf-8 escape": (call) => call.trailersOnly(8, "", { "grpc-message": "a%ffb" }),
  "error details": (call) => call.trailersOnly(3, "look closer", { "grpc-status-details-bin": DETAILS }),
  "no trailers": (call) => {
    call.stream.respond({ ":status": 200, "content-type": "application/grpc+proto" });
    call.stream.end(envelope("first"));
  },
  "head alone": (call) => call.stream.respond({ ":status": 200, "content-type": "application/grpc+proto" }, { endStream: true }),
  "reset, no head": (call) => call.stream.close(http2.constants.NGHTTP2_ENHANCE_YOUR_CALM),
  "reset after head": async (call) => (await call.head().settle()).stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR),
  "reset after a message": async (call) => (await call.head().say("first").settle()).stream.close(http2.constants.NGHTTP2_INADEQUATE_SECURITY),
  "reset inside a message": async (call) => {
    call.head().stream.write(envelope("half").subarray(0, 8));
    (await call.settle()).stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
  },
  "killed, no head": (call) => call.socket.destroy(),
  "killed after head": async (call) => (await call.head().settle()).socket.destroy(),
  "killed after a message": async (call) => (await call.head().say("first").settle()).socket.destroy(),
  "killed inside a message": async (call) => {
    call.head().stream.write(envelope("half").subarray(0, 8));
    (await call.settle()).socket.destroy();
  },
  "killed inside a prefix": async (call) => {
    call.head().say("first").stream.write(Buffer.of(0, 0, 0));
    (await call.settle()).socket.destroy();
  },
  "killed inside the second message": async (call) => {
    call.head().say("first").stream.write(envelope("half").subarray(0, 8));
    (await call.settle()).socket.resetAndDestroy();
  },
  "503 text/plain": (call) => call.plain(503, "text/plain", "upstream connect error"),
  "502 text/html": (call) => call.plain(502, "text/html", "<h1>Bad Gateway</h1>"),
  "429 text/plain": (call) => call.plain(429, "text/plain", "slow down"),
  "429 with grpc-status 8": (call) => call.plain(429, "application/grpc", "", { "grpc-status": "8", "grpc-message": "quota" }),
  "401 with grpc-status 16": (call) => call.plain(401, "application/grpc", "", { "grpc-status": "16", "grpc-message": "who are you" }),
  "403 text/plain": (call) => call.plain(403, "text/plain", "no"),
  "404 text/html": (call) => call.plain(404, "text/html", "<h1>Not Found</h1>"),
  "200 text/html": (call) => call.plain(200, "text/html", "<h1>Welcome</h1>"),
  endless: (call) => {
    call.head();
    let n = 0;
    const tick = setInterval(() => call.say(String(++n)), 20);
    call.stream.on("close", () => clearInterval(tick));
  },
  "count to 100, stop at 37": (call) => {
    call.head();
    let n = 0;
    const next = () => {
      call.stream.write(envelope(String(++n)), () => {
        process.stdout.write(`sent ${n}\n`);
        if (n < 37) setTimeout(next, 1);
      });
    };
    next();
  },
  ...Object.fromEntries(
    Array.from({ length: 16 }, (_, i) => [`status ${i + 1}`, (call) => call.trailersOnly(i + 1, `status ${i + 1}`)]),
  ),
};

/** google.rpc.Status { code: 3, message: "look closer", details: [Any { type_url: "type.googleapis.com/wharf.Why" }] } */
const DETAILS = (() => {
  const any = Buffer.concat([Buffer.of(0x0a, 29), Buffer.from("type.googleapis.com/wharf.Why")]);
  return Buffer.concat([Buffer.of(0x08, 3, 0x12, 11), Buffer.from("look closer"), Buffer.of(0x1a, any.length), any]).toString("base64").replace(/=+$/, "");
})();

function message(text) {
  const utf8 = Buffer.from(text);
  if (utf8.length === 0) return utf8;
  const length = [];
  for (let rest = utf8.length; ; rest >>>= 7) {
    if (rest < 128) {
      length.push(rest);
      break;
    }
    length.push((rest & 127) | 128);
  }
  return Buffer.concat([Buffer.of(0x0a, ...length), utf8]);
}

function prefix(flags, length) {
  const bytes = Buffer.alloc(5);
  bytes[0] = flags;
  bytes.writeUInt32BE(length, 1);
  return bytes;
}

function envelope(text) {
  const body = message(text);
  return Buffer.concat([prefix(0, body.length), body]);
}

/** One envelope, flags 0, nothing before and nothing after: what a browser's request must have become. */
function isWhole(request) {
  return request.length >= 5 && request[0] === 0 && request.readUInt32BE(1) === request.length - 5;
}

function stringField(bytes) {
  return bytes[0] === 0x0a ? bytes.subarray(2, 2 + bytes[1]).toString() : "";
}

function escaped(text) {
  return Array.from(Buffer.from(text), (byte) =>
    byte < 0x20 || byte > 0x7e || byte === 0x25 ? `%${byte.toString(16).toUpperCase().padStart(2, "0")}` : String.fromCharCode(byte),
  ).join("");
}

if (process.argv[1] === import.meta.filename) {
  const { port } = await startBackend();
  process.stdout.write(`port ${port}\n`);
}
