//! The codecs allocate nothing once their buffers have their size, or exactly what is said here with its reason.
//!
//! Counted by an allocator of its own, on the thread that asks; each thing runs once before, so that what is made once and for
//! all is not counted.

#[path = "../benches/samples/mod.rs"]
mod samples;

use allocation_counter::measure;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use wharf::rpc::Form;
use wharf::rpc::trailer_frame::TrailerFrame;
use wharf::wire::Code;
use wharf::wire::base64::{Decoder, Encoder};
use wharf::wire::envelope::Walker;
use wharf::wire::http1::{CHUNK_END, HeadLimits, scan, write_chunk_head};

/// How many allocations the second run makes.
fn allocations(mut run: impl FnMut()) -> u64 {
    run();
    measure(run).count_total
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(7)))), 1);
}

#[test]
fn the_walk_over_envelopes_allocates_nothing() {
    for size in samples::MESSAGES {
        let piece = samples::messages(size);
        let mut walker = Walker::new();
        let count = allocations(|| {
            samples::walk(&mut walker, &piece);
        });
        assert_eq!(count, 0, "messages of {size} bytes");
    }
}

#[test]
fn base64_allocates_nothing_either_way_into_a_buffer_that_is_large_enough() {
    for size in samples::MESSAGES {
        let piece = samples::messages(size);
        let text = samples::text(&piece);
        let mut out = BytesMut::with_capacity(2 * samples::PIECE);
        let encoded = allocations(|| {
            out.clear();
            // In pieces, so that bytes are held over.
            let mut encoder = Encoder::new();
            for part in piece.chunks(1000) {
                encoder.encode(part, &mut out);
            }
            encoder.flush(&mut out);
            assert_eq!(out, text);
        });
        assert_eq!(encoded, 0, "messages of {size} bytes");
        let decoded = allocations(|| {
            out.clear();
            let mut decoder = Decoder::new();
            for part in text.chunks(1001) {
                assert_eq!(decoder.decode(part, &mut out), Ok(()));
            }
            assert_eq!(out, piece);
        });
        assert_eq!(decoded, 0, "messages of {size} bytes");
    }
}

#[test]
fn a_chunk_is_written_without_an_allocation() {
    let mut out = BytesMut::with_capacity(samples::PIECE);
    let count = allocations(|| {
        for size in [1, 9, 0xfff, samples::PIECE, usize::MAX] {
            out.clear();
            write_chunk_head(size, &mut out);
            out.extend_from_slice(CHUNK_END);
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn a_head_is_looked_for_without_an_allocation() {
    let limits = HeadLimits::default();
    let count = allocations(|| {
        for end in 0..=samples::HEAD.len() {
            let found = scan(&samples::HEAD[..end], 0, &limits);
            assert_eq!(
                found.is_ok_and(|end| end.is_some()),
                end == samples::HEAD.len()
            );
        }
    });
    assert_eq!(count, 0);
}

/// A trailer frame outlives the call that wrote it, so it has a buffer of its own, unless it is the one of nearly every call.
#[test]
fn a_trailer_frame_is_one_allocation_and_the_usual_one_is_none() {
    for (trailers, expected) in [(HeaderMap::new(), 0), (samples::trailers(), 1)] {
        let count = allocations(|| {
            let frame = TrailerFrame::new(Code::OK, None, &trailers);
            assert_eq!(frame.dropped_fields, 0);
        });
        assert_eq!(count, expected, "{trailers:?}");
    }
}

/// Envelopes pass untouched.
#[test]
fn an_answer_in_binary_passes_without_an_allocation() {
    for size in samples::MESSAGES {
        let piece = samples::messages(size);
        let mut codec = samples::response_codec(Form::Binary);
        let count = allocations(|| {
            assert_eq!(
                samples::translate(&mut codec, Bytes::clone(&piece)),
                piece.len()
            );
        });
        assert_eq!(count, 0, "messages of {size} bytes");
    }
}

/// A text has another length than what it stands for, so it has a buffer of its own, and needs no second one to be handed on.
#[test]
fn an_answer_in_text_is_one_allocation() {
    for size in samples::MESSAGES {
        let piece = samples::messages(size);
        let text = samples::text(&piece);
        let mut codec = samples::response_codec(Form::Text);
        let count = allocations(|| {
            assert_eq!(
                samples::translate(&mut codec, Bytes::clone(&piece)),
                text.len()
            );
        });
        assert_eq!(count, 1, "messages of {size} bytes");
    }
}
