//! What a call costs on its way through the pure rooms, in bytes per second: the walk over envelopes, base64 both ways, the
//! chunk writer, a request's head, a trailer frame, and an answer through its codec.
//!
//! `cargo bench --bench codec`; with `-- NAME` one of them. Sockets and HTTP/2 are measured elsewhere.

mod samples;

use std::hint::black_box;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use samples::{HEAD, MESSAGES, PIECE, messages, response_codec, trailers, translate, walk};
use wharf::rpc::Form;
use wharf::rpc::trailer_frame::TrailerFrame;
use wharf::wire::Code;
use wharf::wire::base64::{Decoder, Encoder};
use wharf::wire::envelope::Walker;
use wharf::wire::http1::{CHUNK_END, HeadLimits, parse_request, scan, write_chunk_head};

fn envelopes(c: &mut Criterion) {
    let mut group = c.benchmark_group("envelope_walk");
    for size in MESSAGES {
        let piece = messages(size);
        group.throughput(Throughput::Bytes(piece.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            let mut walker = Walker::new();
            b.iter(|| walk(&mut walker, black_box(&piece)));
        });
    }
    group.finish();
}

fn base64(c: &mut Criterion) {
    let mut group = c.benchmark_group("base64");
    let piece = messages(1 << 10);
    group.throughput(Throughput::Bytes(piece.len() as u64));
    let mut text = BytesMut::new();
    group.bench_function("encode", |b| {
        b.iter(|| {
            text.clear();
            let mut encoder = Encoder::new();
            encoder.encode(black_box(&piece), &mut text);
            encoder.flush(&mut text);
            text.len()
        });
    });
    let mut bytes = BytesMut::new();
    group.bench_function("decode", |b| {
        b.iter(|| {
            bytes.clear();
            let mut decoder = Decoder::new();
            let decoded = decoder.decode(black_box(&text), &mut bytes);
            decoded.expect("base64");
            bytes.len()
        });
    });
    group.finish();
}

fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk_writer");
    for size in MESSAGES {
        let content = vec![7; size];
        let mut out = BytesMut::with_capacity(PIECE);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                out.clear();
                write_chunk_head(black_box(size), &mut out);
                out.extend_from_slice(&content);
                out.extend_from_slice(CHUNK_END);
                out.len()
            });
        });
    }
    group.finish();
}

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    let limits = HeadLimits::default();
    let head = Bytes::from_static(HEAD);
    group.throughput(Throughput::Bytes(HEAD.len() as u64));
    group.bench_function("scan", |b| b.iter(|| scan(black_box(HEAD), 0, &limits)));
    group.bench_function("parse", |b| {
        b.iter(|| parse_request(black_box(head.clone()), &limits));
    });
    group.finish();
}

fn answers(c: &mut Criterion) {
    let mut group = c.benchmark_group("response_codec");
    for (name, response) in [("binary", Form::Binary), ("text", Form::Text)] {
        for size in MESSAGES {
            let piece = messages(size);
            group.throughput(Throughput::Bytes(piece.len() as u64));
            group.bench_function(BenchmarkId::new(name, size), |b| {
                let mut codec = response_codec(response);
                b.iter(|| translate(&mut codec, black_box(piece.clone())));
            });
        }
    }
    group.finish();
}

fn trailer_frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("trailer_frame");
    let trailers = trailers();
    let size = TrailerFrame::new(Code::OK, None, &trailers).bytes.len();
    group.throughput(Throughput::Bytes(size as u64));
    group.bench_function("ok", |b| {
        b.iter(|| TrailerFrame::new(black_box(Code::OK), None, black_box(&trailers)));
    });
    group.finish();
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! {
    name = codec;
    config = quick();
    targets = envelopes, base64, chunks, heads, trailer_frames, answers
}
criterion_main!(codec);
