//! What a call costs on its way through the pure rooms, in bytes per second: the walk over envelopes, base64 both ways, the
//! chunk writer, a request's head, and an answer through its codec.
//!
//! `cargo bench --bench codec`; with `-- NAME` one of them. Sockets and HTTP/2 are measured elsewhere.

use std::hint::black_box;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, StatusCode};
use wharf::rpc::{Dialect, Form, ResponseCodec};
use wharf::wire::base64::{Decoder, Encoder};
use wharf::wire::envelope::{Step, Walker, prefix};
use wharf::wire::http1::{CHUNK_END, HeadLimits, parse_request, scan, write_chunk_head};
use wharf::wire::{Part, ResponseHead};

/// What one read of a socket brings at most.
const PIECE: usize = 64 << 10;
/// The sizes of messages that calls are made of: a counter, a row, a picture.
const MESSAGES: [usize; 3] = [8, 1 << 10, 60_000];

/// A piece full of messages of that size.
fn messages(size: usize) -> Bytes {
    let mut piece = BytesMut::new();
    while piece.len() + size + 5 <= PIECE {
        piece.extend_from_slice(&prefix(0, size as u32));
        piece.extend((0..size).map(|n| n as u8));
    }
    piece.freeze()
}

fn envelopes(c: &mut Criterion) {
    let mut group = c.benchmark_group("envelope_walk");
    for size in MESSAGES {
        let piece = messages(size);
        group.throughput(Throughput::Bytes(piece.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            let mut walker = Walker::new();
            b.iter(|| {
                let mut at = 0;
                loop {
                    let (used, step) = walker.step(black_box(piece.get(at..).unwrap_or_default()));
                    at += used;
                    if step == Step::Hungry {
                        break;
                    }
                }
                walker.messages()
            });
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

/// As Chromium sends it.
const HEAD: &[u8] = b"POST /helloworld.Greeter/SayHello HTTP/1.1\r\n\
    Host: localhost:8080\r\nConnection: keep-alive\r\nContent-Length: 12\r\n\
    sec-ch-ua-platform: \"Linux\"\r\nx-grpc-web: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/143.0.0.0 Safari/537.36\r\n\
    sec-ch-ua: \"Chromium\";v=\"143\", \"Not A(Brand\";v=\"24\"\r\n\
    content-type: application/grpc-web+proto\r\nx-user-agent: grpc-web-javascript/0.1\r\n\
    sec-ch-ua-mobile: ?0\r\nAccept: */*\r\nOrigin: http://localhost:3000\r\n\
    Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n\
    Referer: http://localhost:3000/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-US,en;q=0.9\r\n\r\n";

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
                let dialect = Dialect::GrpcWeb {
                    request: Form::Binary,
                    response,
                };
                let mut codec = ResponseCodec::new(dialect, &HeaderMap::new(), u32::MAX);
                let mut head = ResponseHead::new(StatusCode::OK);
                let grpc = HeaderValue::from_static("application/grpc");
                head.headers.insert("content-type", grpc);
                let begun = codec.translate(Part::Head(Box::new(head)), &mut |_| {});
                assert_eq!(begun, Ok(None));
                b.iter(|| {
                    let part = Part::Data(black_box(piece.clone()));
                    let mut bytes = 0;
                    let passed = codec.translate(part, &mut |part| {
                        if let Part::Data(data) = part {
                            bytes += data.len();
                        }
                    });
                    assert_eq!(passed, Ok(None));
                    bytes
                });
            });
        }
    }
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
    targets = envelopes, base64, chunks, heads, answers
}
criterion_main!(codec);
