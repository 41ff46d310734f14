//! What things cost in user instructions, counted by Callgrind: the codecs one by one, and whole calls through one core's turn.
//!
//! Unlike time, these figures are the same on a busy machine. `scripts/counts` runs it and compares with `counts.toml`; by
//! itself it needs valgrind and `gungraun-runner`, and says so. Only the measured part counts: of a codec, the function that is
//! marked; of a call, what `machine::counted_turn` runs less what `machine` does in it for sockets and time. `scripts/counts` also
//! sets what the C library must be told, without which long copies are counted byte by byte.
#![allow(
    missing_docs,
    unused_qualifications,
    reason = "the macros write code without docs, and with long names"
)]

mod machine;
mod samples;

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use gungraun::prelude::*;
use gungraun::{Callgrind, EntryPoint};
use http::HeaderMap;
use machine::{CASES, World};
use wharf::rpc::trailer_frame::TrailerFrame;
use wharf::rpc::{Form, ResponseCodec};
use wharf::wire::base64::{Decoder, Encoder};
use wharf::wire::envelope::Walker;
use wharf::wire::http1::{CHUNK_END, HeadLimits, parse_request, scan, write_chunk_head};
use wharf::wire::{Code, Fields, metadata};

#[library_benchmark]
#[bench::browser(samples::HEAD)]
fn head_scan(head: &[u8]) -> bool {
    let found = scan(black_box(head), 0, &HeadLimits::default());
    matches!(black_box(found), Ok(Some(_)))
}

#[library_benchmark]
#[bench::browser(Bytes::from_static(samples::HEAD))]
fn head_parse(head: Bytes) -> bool {
    black_box(parse_request(black_box(head), &HeadLimits::default())).is_ok()
}

fn fields() -> Fields {
    let head = Bytes::from_static(samples::HEAD);
    let request = parse_request(head, &HeadLimits::default()).expect("a head");
    request.head.headers
}

#[library_benchmark]
#[bench::browser(fields())]
fn metadata_forward(fields: Fields) -> (Fields, HeaderMap) {
    let forwarded = black_box(metadata::forward_request(black_box(&fields)));
    (fields, forwarded)
}

#[library_benchmark]
#[bench::messages_8(samples::messages(8))]
#[bench::messages_1k(samples::messages(1 << 10))]
fn envelope_walk(piece: Bytes) -> (u64, Bytes) {
    let messages = black_box(samples::walk(&mut Walker::new(), black_box(&piece)));
    (messages, piece)
}

#[library_benchmark]
#[bench::messages_1k(samples::messages(1 << 10), BytesMut::with_capacity(2 * samples::PIECE))]
fn base64_encode(piece: Bytes, mut out: BytesMut) -> (Bytes, BytesMut) {
    let mut encoder = Encoder::new();
    encoder.encode(black_box(&piece), &mut out);
    encoder.flush(&mut out);
    (piece, black_box(out))
}

#[library_benchmark]
#[bench::messages_1k(samples::text(&samples::messages(1 << 10)), BytesMut::with_capacity(samples::PIECE))]
fn base64_decode(text: BytesMut, mut out: BytesMut) -> (BytesMut, BytesMut) {
    let decoded = Decoder::new().decode(black_box(&text), &mut out);
    assert!(decoded.is_ok());
    (text, black_box(out))
}

#[library_benchmark]
#[bench::ok(samples::trailers())]
fn trailer_frame(trailers: HeaderMap) -> (HeaderMap, TrailerFrame) {
    let frame = black_box(TrailerFrame::new(Code::OK, None, black_box(&trailers)));
    (trailers, frame)
}

#[library_benchmark]
#[bench::small(samples::messages(8).slice(..13), BytesMut::with_capacity(64))]
fn chunk_writer(content: Bytes, mut out: BytesMut) -> (Bytes, BytesMut) {
    write_chunk_head(black_box(content.len()), &mut out);
    out.extend_from_slice(&content);
    out.extend_from_slice(CHUNK_END);
    (content, black_box(out))
}

#[library_benchmark]
#[bench::binary(samples::response_codec(Form::Binary), samples::messages(1 << 10))]
#[bench::text(samples::response_codec(Form::Text), samples::messages(1 << 10))]
fn response_codec(mut codec: ResponseCodec, piece: Bytes) -> (ResponseCodec, usize) {
    let bytes = black_box(samples::translate(&mut codec, black_box(piece)));
    (codec, bytes)
}

fn world(name: &str) -> World {
    let case = CASES.into_iter().find(|case| case.name == name);
    World::new(case.expect("one of the cases"))
}

/// Each entry and each return flips the counting: on in the turn, off in what stands for the kernel, on again behind it.
fn turn_only() -> LibraryBenchmarkConfig {
    let machine = ["--toggle-collect=*::machine::memory::outside::*"];
    let entry = EntryPoint::Custom("*::machine::counted_turn*".to_owned());
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::with_args(machine).entry_point(entry));
    config
}

#[library_benchmark(config = turn_only())]
#[bench::unary(world("unary"))]
#[bench::unary_1k(world("unary-1k"))]
#[bench::unary_64k(world("unary-64k"))]
#[bench::text(world("text"))]
#[bench::text_1k(world("text-1k"))]
#[bench::native(world("native"))]
#[bench::stream_1(world("stream-1"))]
#[bench::stream_10(world("stream-10"))]
#[bench::stream_10_text(world("stream-10-text"))]
#[bench::stream_10_native(world("stream-10-native"))]
fn turn(mut world: World) -> World {
    let calls = world.case.calls;
    world.run(calls);
    world
}

library_benchmark_group!(
    name = codecs,
    benchmarks = [
        head_scan,
        head_parse,
        metadata_forward,
        envelope_walk,
        base64_encode,
        base64_decode,
        trailer_frame,
        chunk_writer,
        response_codec
    ]
);

library_benchmark_group!(name = calls, benchmarks = [turn]);

main!(library_benchmark_groups = [codecs, calls]);
