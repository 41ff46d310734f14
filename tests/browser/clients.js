// Five gRPC-Web libraries behind one function, bundled for the browser: `await call({ library, kind, … })`.
//
// Each library is used as its own users do, with two differences: no generated code (the messages are declared below, once
// for each library's taste), and every event is written down instead of thrown.

import { create, createFileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FieldDescriptorProto_Label as Label, FieldDescriptorProto_Type as Type } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { grpc } from "@improbable-eng/grpc-web";
import { MessageType, ScalarType } from "@protobuf-ts/runtime";
import { RpcError, ServiceType } from "@protobuf-ts/runtime-rpc";
import { GrpcWebFetchTransport } from "@protobuf-ts/grpcweb-transport";
import { BinaryReader, BinaryWriter } from "google-protobuf";
import { GrpcWebClientBase, MethodDescriptor } from "grpc-web";
import { Metadata as NiceMetadata } from "nice-grpc-common";
import { ClientError, FetchTransport, createChannel, createClient as createNiceClient } from "nice-grpc-web";

const SERVICE = "wharf.shapes.v1.Shapes";

/**
 * Makes one call and returns what the library made of it:
 * `{ code, message, texts, headers, trailers, details, ends }`; code 0 with `ends` 1 is a success. Header names are in lower
 * case, `-bin` values are bytes as arrays. `credentials`: "include" sends cookies to another origin. `details` are the bytes of grpc-status-details-bin, where a library shows them.
 */
async function call({ library, kind, shape, baseUrl, metadata = {}, credentials = "same-origin", progress = () => {}, signal }) {
  const seen = { code: null, message: "", texts: [], headers: {}, trailers: {}, details: null, ends: 0 };
  const said = (text) => progress(seen.texts.push(text));
  const ended = (code, message) => {
    seen.ends += 1;
    if (seen.ends === 1) [seen.code, seen.message] = [code, message];
  };
  await libraries[library]({ kind, shape, baseUrl, metadata, credentials, seen, said, ended, signal });
  // A second end would come on one of the next turns.
  await new Promise((resolve) => setTimeout(resolve, 5));
  return seen;
}

const libraries = {
  "connect-web": connectWeb,
  "grpc-web": (ask) => google({ ...ask, format: "binary" }),
  "grpc-web text": (ask) => google({ ...ask, format: "text" }),
  "nice-grpc-web": nice,
  "protobuf-ts": (ask) => protobufTs({ ...ask, format: "binary" }),
  "protobuf-ts text": (ask) => protobufTs({ ...ask, format: "text" }),
  improbable,
};

// ---- @connectrpc/connect-web

const field = (name, number, type) => ({ name, number, type, label: Label.OPTIONAL, jsonName: name });
const registry = createFileRegistry(
  create(FileDescriptorProtoSchema, {
    name: "shapes.proto",
    package: "wharf.shapes.v1",
    syntax: "proto3",
    messageType: [{ name: "Text", field: [field("text", 1, Type.STRING)] }],
    service: [
      {
        name: "Shapes",
        method: [
          { name: "Unary", inputType: `.wharf.shapes.v1.Text`, outputType: `.wharf.shapes.v1.Text` },
          { name: "Stream", inputType: `.wharf.shapes.v1.Text`, outputType: `.wharf.shapes.v1.Text`, serverStreaming: true },
        ],
      },
    ],
  }),
  () => undefined,
);
const Shapes = registry.getService(SERVICE);
const Text = registry.getMessage("wharf.shapes.v1.Text");

async function connectWeb({ kind, shape, baseUrl, metadata, credentials, seen, said, ended, signal }) {
  const transport = createGrpcWebTransport({ baseUrl, fetch: (input, init) => fetch(input, { ...init, credentials }) });
  const client = createClient(Shapes, transport);
  const options = {
    headers: metadata,
    signal,
    onHeader: (headers) => (seen.headers = fromHeaders(headers)),
    onTrailer: (trailers) => (seen.trailers = fromHeaders(trailers)),
  };
  try {
    if (kind === "unary") said((await client.unary({ text: shape }, options)).text);
    else for await (const reply of client.stream({ text: shape }, options)) said(reply.text);
    ended(0, "");
  } catch (thrown) {
    const error = ConnectError.from(thrown);
    seen.trailers = { ...fromHeaders(error.metadata), ...seen.trailers };
    ended(Number(error.code), error.rawMessage);
    if (error.details.length > 0) seen.details = error.details.map((detail) => detail.type).join();
    if (Code[error.code] === undefined) throw thrown;
  }
}

function fromHeaders(headers) {
  return Object.fromEntries([...headers].map(([name, value]) => [name.toLowerCase(), value]));
}

// ---- grpc-web

async function google({ kind, shape, baseUrl, metadata, credentials, seen, said, ended, format, signal }) {
  const client = new GrpcWebClientBase({ format, withCredentials: credentials === "include" });
  const encode = (text) => toBinary(Text, create(Text, { text }));
  const decode = (bytes) => fromBinary(Text, bytes).text;
  const method = kind === "unary" ? "Unary" : "Stream";
  const descriptor = new MethodDescriptor(`/${SERVICE}/${method}`, kind === "unary" ? "unary" : "server_streaming", String, String, encode, decode);
  const url = `${baseUrl}/${SERVICE}/${method}`;
  await new Promise((resolve) => {
    const watch = (stream) => {
      signal?.addEventListener("abort", () => stream.cancel());
      stream.on("metadata", (headers) => (seen.headers = lower(headers)));
      stream.on("status", (status) => (seen.trailers = lower(status.metadata ?? {})));
      return stream;
    };
    const fail = (error) => {
      seen.trailers = { ...lower(error.metadata ?? {}), ...seen.trailers };
      ended(error.code, error.message);
      resolve();
    };
    if (kind === "unary") {
      watch(
        client.rpcCall(url, shape, metadata, descriptor, (error, reply) => {
          if (error) return fail(error);
          said(reply);
          ended(0, "");
          resolve();
        }),
      );
      return;
    }
    const stream = watch(client.serverStreaming(url, shape, metadata, descriptor));
    let failed = false;
    stream.on("data", said);
    stream.on("error", (error) => {
      failed = true;
      fail(error);
    });
    // After an error this library says `end` as well or not: it is no second end.
    stream.on("end", () => {
      if (!failed) ended(0, "");
      resolve();
    });
  });
}

function lower(fields) {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name.toLowerCase(), value]));
}

// ---- nice-grpc-web

const niceMethod = (name, responseStream) => ({
  path: `/${SERVICE}/${name}`,
  requestStream: false,
  responseStream,
  requestSerialize: (text) => toBinary(Text, create(Text, text)),
  requestDeserialize: (bytes) => fromBinary(Text, bytes),
  responseSerialize: (text) => toBinary(Text, create(Text, text)),
  responseDeserialize: (bytes) => fromBinary(Text, bytes),
  options: {},
});
const niceService = { unary: niceMethod("Unary", false), stream: niceMethod("Stream", true) };

async function nice({ kind, shape, baseUrl, metadata, credentials, seen, said, ended, signal }) {
  const client = createNiceClient(niceService, createChannel(baseUrl, FetchTransport({ credentials })));
  const options = {
    metadata: NiceMetadata(metadata),
    signal,
    onHeader: (headers) => (seen.headers = fromNice(headers)),
    onTrailer: (trailers) => (seen.trailers = fromNice(trailers)),
  };
  try {
    if (kind === "unary") said((await client.unary({ text: shape }, options)).text);
    else for await (const reply of client.stream({ text: shape }, options)) said(reply.text);
    ended(0, "");
  } catch (error) {
    if (!(error instanceof ClientError) && error.name !== "AbortError") throw error;
    ended(error.code ?? 1, error.details ?? error.message);
  }
}

function fromNice(metadata) {
  return Object.fromEntries([...metadata].map(([name, values]) => [name, values.map((value) => (typeof value === "string" ? value : [...value])).join(", ")]));
}

// ---- @protobuf-ts/grpcweb-transport

const TsText = new MessageType("wharf.shapes.v1.Text", [{ no: 1, name: "text", kind: "scalar", T: ScalarType.STRING }]);
const tsService = new ServiceType(SERVICE, [
  { name: "Unary", options: {}, I: TsText, O: TsText },
  { name: "Stream", serverStreaming: true, options: {}, I: TsText, O: TsText },
]);

async function protobufTs({ kind, shape, baseUrl, metadata, credentials, seen, said, ended, format, signal }) {
  const transport = new GrpcWebFetchTransport({ baseUrl, format, fetchInit: { credentials } });
  const options = transport.mergeOptions({ meta: metadata, abort: signal });
  const method = tsService.methods[kind === "unary" ? 0 : 1];
  const running = kind === "unary" ? transport.unary(method, { text: shape }, options) : transport.serverStreaming(method, { text: shape }, options);
  const keep = (where) => (fields) => (seen[where] = lower(fields));
  // These two are promises of their own, rejected with the call.
  const aside = [running.headers.then(keep("headers"), () => {}), running.trailers.then(keep("trailers"), () => {})];
  try {
    if (kind === "unary") said((await running.response).text);
    else for await (const reply of running.responses) said(reply.text);
    const status = await running.status;
    if (status.code !== "OK") throw new RpcError(status.detail, status.code);
    ended(0, "");
  } catch (error) {
    if (!(error instanceof RpcError)) throw error;
    seen.trailers = lower(error.meta ?? {});
    ended(TS_CODES.indexOf(error.code), error.message);
  }
  for (const rejected of [running.status, running.response, running.trailers, running.headers]) rejected?.catch?.(() => {});
  await Promise.all(aside);
}

const TS_CODES = ["OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
  "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"];

// ---- @improbable-eng/grpc-web

class ImprobableText {
  constructor(text = "") {
    this.text = text;
  }
  serializeBinary() {
    const writer = new BinaryWriter();
    writer.writeString(1, this.text);
    return writer.getResultBuffer();
  }
  static deserializeBinary(bytes) {
    const reader = new BinaryReader(bytes);
    const message = new ImprobableText();
    while (reader.nextField() && !reader.isEndGroup()) {
      if (reader.getFieldNumber() === 1) message.text = reader.readString();
      else reader.skipField();
    }
    return message;
  }
}

function improbable({ kind, shape, baseUrl, metadata, credentials, seen, said, ended, signal }) {
  const descriptor = {
    methodName: kind === "unary" ? "Unary" : "Stream",
    service: { serviceName: SERVICE },
    requestStream: false,
    responseStream: kind !== "unary",
    requestType: ImprobableText,
    responseType: ImprobableText,
  };
  const fields = (headers) => {
    const all = {};
    headers.forEach((name, values) => (all[name.toLowerCase()] = [].concat(values).join(", ")));
    return all;
  };
  return new Promise((resolve) => {
    const running = grpc.invoke(descriptor, {
      host: baseUrl,
      transport: grpc.CrossBrowserHttpTransport({ withCredentials: credentials === "include" }),
      request: new ImprobableText(shape),
      metadata: new grpc.Metadata(metadata),
      onHeaders: (headers) => (seen.headers = fields(headers)),
      onMessage: (reply) => said(reply.text),
      onEnd: (code, message, trailers) => {
        seen.trailers = fields(trailers);
        ended(code, message);
        resolve();
      },
    });
    signal?.addEventListener("abort", () => {
      running.close();
      resolve();
    });
  });
}

globalThis.wharfTest = { call, libraries: Object.keys(libraries) };
