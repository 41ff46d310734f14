//! Rows H1-32 to H1-47 of the fault catalogue.

use super::*;

/// What a body said: its content, whether it ended, and how many bytes belonged to it.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    content: Vec<u8>,
    outcome: Result<Ended, BodyFault>,
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// So many bytes of the input were the body.
    At(usize),
    /// The input was over first.
    NotYet,
}

/// Reads a body whose input comes in these pieces, as a connection would: what is not taken is offered again.
fn read_pieces<'a>(
    framing: Framing,
    limits: BodyLimits,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Read {
    let mut decoder = BodyDecoder::new(framing, limits);
    let mut content = Vec::new();
    let mut taken = 0;
    for piece in pieces {
        let mut unread = piece;
        loop {
            match decoder.decode(unread) {
                Ok(Step::Data { skip, len }) => {
                    assert!(len > 0, "content of nothing");
                    content.extend_from_slice(&unread[skip..skip + len]);
                    unread = &unread[skip + len..];
                    taken += skip + len;
                }
                Ok(Step::More { used }) => {
                    assert_eq!(used, unread.len(), "more is asked for while there is some");
                    taken += used;
                    break;
                }
                Ok(Step::End { used }) => {
                    taken += used;
                    assert!(decoder.is_done());
                    assert_eq!(
                        decoder.decode(b"5\r\n"),
                        Ok(Step::End { used: 0 }),
                        "sticky"
                    );
                    assert_eq!(decoder.at_eof(), Ok(()));
                    return Read {
                        content,
                        outcome: Ok(Ended::At(taken)),
                    };
                }
                Err(fault) => {
                    assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(fault), "sticky");
                    assert_eq!(decoder.at_eof(), Err(fault));
                    return Read {
                        content,
                        outcome: Err(fault),
                    };
                }
            }
        }
    }
    assert_eq!(
        decoder.at_eof(),
        if decoder.is_done() {
            Ok(())
        } else {
            Err(BodyFault::Truncated)
        }
    );
    Read {
        content,
        outcome: Ok(Ended::NotYet),
    }
}

/// Reads a body, and holds H1-68 along the way: at once, in two pieces at every point and byte by byte it says the same.
fn read(framing: Framing, input: &[u8]) -> Read {
    let limits = BodyLimits::default();
    let whole = read_pieces(framing, limits, [input].into_iter());
    let bytes = read_pieces(framing, limits, input.chunks(1));
    assert_eq!(bytes, whole, "{input:?} byte by byte");
    let step = 1 + input.len() / 500;
    for split in (0..=input.len()).step_by(step) {
        let (one, two) = input.split_at(split);
        let pieces = read_pieces(framing, limits, [one, two].into_iter());
        assert_eq!(pieces, whole, "{input:?} in two at {split}");
    }
    whole
}

fn chunked(input: &[u8]) -> Read {
    read(Framing::Chunked, input)
}

#[test]
fn a_body_without_framing_is_over_at_once() {
    for framing in [Framing::Empty, Framing::Length(0)] {
        let read = read(framing, b"GET / HTTP/1.1\r\n");
        assert_eq!(
            read,
            Read {
                content: vec![],
                outcome: Ok(Ended::At(0))
            }
        );
    }
}

#[test]
fn a_body_by_length_ends_at_its_length() {
    let whole = read(Framing::Length(5), b"helloPOST");
    assert_eq!(
        whole,
        Read {
            content: b"hello".to_vec(),
            outcome: Ok(Ended::At(5))
        }
    );
    // H1-46.
    let cut = read(Framing::Length(6), b"hello");
    assert_eq!(
        cut,
        Read {
            content: b"hello".to_vec(),
            outcome: Ok(Ended::NotYet)
        }
    );
    let huge = read(Framing::Length(u64::MAX), b"hello");
    assert_eq!(huge.outcome, Ok(Ended::NotYet));
}

#[test]
fn bytes_left_are_known_only_where_a_length_was_declared() {
    let mut decoder = BodyDecoder::new(Framing::Length(5), BodyLimits::default());
    assert_eq!(decoder.bytes_left(), Some(5));
    assert_eq!(decoder.decode(b"he"), Ok(Step::Data { skip: 0, len: 2 }));
    assert_eq!(decoder.bytes_left(), Some(3));
    assert!(!decoder.is_done());
    assert_eq!(decoder.decode(b"llo"), Ok(Step::Data { skip: 0, len: 3 }));
    assert_eq!(decoder.bytes_left(), Some(0));
    assert!(decoder.is_done());
    assert_eq!(
        BodyDecoder::new(Framing::Chunked, BodyLimits::default()).bytes_left(),
        None
    );
}

#[test]
fn chunks_become_content() {
    let rows: [(&[u8], &[u8]); 12] = [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"a\r\n0123456789\r\n00\r\n\r\n", b"0123456789"),
        (
            b"0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n",
            b"hello",
        ),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        // H1-38: white space may stand before an extension, which is dropped.
        (b"5 ;a=b\r\nhello\r\n0\t ; c\r\n\r\n", b"hello"),
        (b"5;a=\"b;c\"\r\nhello\r\n0;x\r\n\r\n", b"hello"),
        (b"5;\ta\r\nhello\r\n0\r\n\r\n", b"hello"),
        // H1-44: trailers are read and dropped.
        (
            b"5\r\nhello\r\n0\r\nContent-Length: 7\r\nHost: x\r\nAuthorization:y\r\n\r\n",
            b"hello",
        ),
        (b"0\r\na:\r\nb: \xc3\xa9\t\r\n\r\n", b""),
    ];
    for (input, content) in rows {
        let expected = Read {
            content: content.to_vec(),
            outcome: Ok(Ended::At(input.len())),
        };
        assert_eq!(chunked(input), expected, "{input:?}");
        // H1-45: a byte behind the end is the next message's.
        let longer = [input, b"X"].concat();
        assert_eq!(chunked(&longer), expected, "{longer:?}");
        // H1-47: whatever is missing at the end, it is not the end.
        for cut in 0..input.len() {
            assert_eq!(
                chunked(&input[..cut]).outcome,
                Ok(Ended::NotYet),
                "{input:?} cut at {cut}"
            );
        }
    }
}

#[test]
fn h1_32_to_42_what_the_grammar_does_not_allow_is_refused() {
    use BodyFault::{ChunkEnd, ChunkExtension, ChunkLineEnd, ChunkSize, Trailer};
    let rows: [(&str, &[u8], BodyFault); 54] = [
        ("h1_32", b"\r\nhello", ChunkSize),
        ("h1_32", b"5\r\nhello\r\n\r\n\r\n", ChunkSize),
        ("h1_33", b";\r\n", ChunkSize),
        ("h1_33", b";a=b\r\n", ChunkSize),
        ("h1_34", b"5;\nhello\r\n0\r\n\r\n", ChunkExtension),
        ("h1_34", b"5;a\nhello\r\n0\r\n\r\n", ChunkExtension),
        ("h1_34", b"0;\n\r\n", ChunkExtension),
        ("h1_35", b"5;a\0b\r\nhello", ChunkExtension),
        ("h1_35", b"5;a\x01\r\nhello", ChunkExtension),
        ("h1_35", b"5;a\x7f\r\nhello", ChunkExtension),
        ("h1_35", b"5;a\x0b\r\nhello", ChunkExtension),
        ("h1_35", b"5;a\x80\r\nhello", ChunkExtension),
        ("h1_36", b"5;a\rb\r\nhello", ChunkLineEnd),
        ("h1_36", b"5\r\r;\r\nhello", ChunkLineEnd),
        ("h1_36", b"5;\r\r\nhello", ChunkLineEnd),
        ("h1_36", b"5\rX\nhello", ChunkLineEnd),
        ("h1_37", b"5 \r\nhello", ChunkSize),
        ("h1_37", b"5\t\r\nhello", ChunkSize),
        ("h1_37", b"5 5\r\nhello", ChunkSize),
        ("h1_39", b"+5\r\nhello", ChunkSize),
        ("h1_39", b"-5\r\nhello", ChunkSize),
        ("h1_39", b"-0\r\n\r\n", ChunkSize),
        ("h1_39", b"0x5\r\nhello", ChunkSize),
        ("h1_39", b"5_0\r\nhello", ChunkSize),
        ("h1_39", b" 5\r\nhello", ChunkSize),
        ("h1_39", b"\t5\r\nhello", ChunkSize),
        ("h1_39", b"5g\r\nhello", ChunkSize),
        ("h1_39", b"g\r\nhello", ChunkSize),
        ("h1_39", b"5,\r\nhello", ChunkSize),
        ("h1_39", b"5\x80\r\nhello", ChunkSize),
        ("h1_39", b"5\0\r\nhello", ChunkSize),
        ("bare LF", b"5\nhello\r\n0\r\n\r\n", ChunkSize),
        ("bare LF", b"\n5\r\nhello", ChunkSize),
        ("bare LF", b"5\r\nhello\r\n0\n\r\n", ChunkSize),
        ("h1_40", b"FFFFFFFFFFFFFFFF\r\nhello", ChunkSize),
        ("h1_40", b"8000000000000000\r\nhello", ChunkSize),
        ("h1_40", b"10000000000000005\r\nhello", ChunkSize),
        ("h1_40", b"00000000000000005\r\nhello", ChunkSize),
        ("h1_42", b"5\r\nhello\n0\r\n\r\n", ChunkEnd),
        ("h1_42", b"5\r\nhelloXX0\r\n\r\n", ChunkEnd),
        ("h1_42", b"5\r\nhello\rX0\r\n\r\n", ChunkEnd),
        ("h1_42", b"5\r\nhello world\r\n0\r\n\r\n", ChunkEnd),
        ("h1_42", b"5\r\nhello0\r\n\r\n", ChunkEnd),
        ("h1_44", b"0\r\nX\r\n", Trailer),
        ("h1_44", b"0\r\n: b\r\n", Trailer),
        ("h1_44", b"0\r\n a: b\r\n", Trailer),
        ("h1_44", b"0\r\na : b\r\n", Trailer),
        ("h1_44", b"0\r\na: b\r\n c\r\n", Trailer),
        ("h1_44", b"0\r\na: b\n\r\n", Trailer),
        ("h1_44", b"0\r\na: b\rc\r\n\r\n", Trailer),
        ("h1_44", b"0\r\na: \0\r\n\r\n", Trailer),
        ("h1_44", b"0\r\n\n", Trailer),
        ("h1_44", b"0\r\n\rX", Trailer),
        ("h1_44", b"0\r\n\x80: b\r\n", Trailer),
    ];
    for (id, input, fault) in rows {
        assert_eq!(
            chunked(input).outcome,
            Err(fault),
            "{id} {:?}",
            String::from_utf8_lossy(input)
        );
    }
    // The largest size that is taken; its content need never come.
    assert_eq!(chunked(b"7FFFFFFFFFFFFFFF\r\nx").outcome, Ok(Ended::NotYet));
}

#[test]
fn h1_41_extensions_are_bounded_in_a_line_and_in_all() {
    let line = |length: usize| format!("5;{}\r\nhello\r\n", "a".repeat(length - 2));
    let fits = format!("{}0\r\n\r\n", line(256));
    assert_eq!(chunked(fits.as_bytes()).outcome, Ok(Ended::At(fits.len())));
    let over = format!("{}0\r\n\r\n", line(257));
    assert_eq!(chunked(over.as_bytes()).outcome, Err(BodyFault::ChunkLine));
    // 255 bytes of extension to a line.
    let many = line(256).repeat(64);
    assert_eq!(chunked(many.as_bytes()).outcome, Ok(Ended::NotYet));
    let too_many = line(256).repeat(65);
    assert_eq!(
        chunked(too_many.as_bytes()).outcome,
        Err(BodyFault::ChunkExtension)
    );
    // 64 times 255, and the 64 that are left.
    let at_limit = many.clone() + &line(65);
    assert_eq!(chunked(at_limit.as_bytes()).outcome, Ok(Ended::NotYet));
    let over = many + &line(66);
    assert_eq!(
        chunked(over.as_bytes()).outcome,
        Err(BodyFault::ChunkExtension)
    );
    let spaces = format!("5{};\r\n", " ".repeat(300));
    assert_eq!(
        chunked(spaces.as_bytes()).outcome,
        Err(BodyFault::ChunkLine)
    );
}

#[test]
fn h1_43_a_million_specks_work_and_a_flood_of_them_ends() {
    let mut decoder = BodyDecoder::new(Framing::Chunked, BodyLimits::default());
    let speck = b"1\r\nX\r\n";
    let mut feed = |chunk: &[u8]| {
        let mut unread = chunk;
        loop {
            match decoder.decode(unread)? {
                Step::Data { skip, len } => unread = &unread[skip + len..],
                Step::More { .. } | Step::End { .. } => return Ok::<(), BodyFault>(()),
            }
        }
    };
    for _ in 0..1 << 20 {
        assert_eq!(feed(speck), Ok(()));
    }
    // A chunk that may be a message pays one back.
    assert_eq!(feed(b"5\r\nhello\r\n"), Ok(()));
    assert_eq!(feed(speck), Ok(()));
    assert_eq!(feed(speck), Err(BodyFault::Specks));
}

#[test]
fn h1_43_a_stream_of_the_smallest_messages_goes_on_as_long_as_it_likes() {
    let limits = BodyLimits {
        specks_max: 3,
        ..BodyLimits::default()
    };
    let pieces = std::iter::repeat_n(&b"5\r\n\0\0\0\0\0\r\n"[..], 10_000);
    let read = read_pieces(Framing::Chunked, limits, pieces);
    assert_eq!(read.outcome, Ok(Ended::NotYet));
    assert_eq!(read.content.len(), 50_000);
    let specks = std::iter::repeat_n(&b"4\r\n\0\0\0\0\r\n"[..], 4);
    assert_eq!(
        read_pieces(Framing::Chunked, limits, specks).outcome,
        Err(BodyFault::Specks)
    );
}

#[test]
fn h1_44_trailers_are_bounded() {
    let body = |fields: String| format!("0\r\n{fields}\r\n");
    let fits = body("a: b\r\n".repeat(100));
    assert_eq!(chunked(fits.as_bytes()).outcome, Ok(Ended::At(fits.len())));
    let many = body("a: b\r\n".repeat(101));
    assert_eq!(
        chunked(many.as_bytes()).outcome,
        Err(BodyFault::TrailersTooLarge)
    );
    let fits = body(format!("a: {}\r\n", "b".repeat((16 << 10) - 6)));
    assert_eq!(chunked(fits.as_bytes()).outcome, Ok(Ended::At(fits.len())));
    let large = body(format!("a: {}\r\n", "b".repeat(16 << 10)));
    assert_eq!(
        chunked(large.as_bytes()).outcome,
        Err(BodyFault::TrailersTooLarge)
    );
}

#[test]
fn what_is_written_in_chunks_reads_back() {
    let mut random = fastrand::Rng::with_seed(47);
    for _ in 0..200 {
        let mut content = Vec::new();
        let mut out = BytesMut::new();
        for _ in 0..random.usize(..6) {
            let len = 1 << random.usize(..13);
            let chunk: Vec<u8> = (0..len + random.usize(..len))
                .map(|_| random.u8(..))
                .collect();
            write_chunk_head(chunk.len(), &mut out);
            out.extend_from_slice(&chunk);
            out.extend_from_slice(CHUNK_END);
            content.extend_from_slice(&chunk);
        }
        out.extend_from_slice(LAST_CHUNK);
        let mut rest = &out[..];
        let pieces = std::iter::from_fn(|| {
            let (piece, later) = rest.split_at(random.usize(1..=4000).min(rest.len()));
            rest = later;
            (!piece.is_empty()).then_some(piece)
        });
        let read = read_pieces(Framing::Chunked, BodyLimits::default(), pieces);
        assert_eq!(
            read,
            Read {
                content,
                outcome: Ok(Ended::At(out.len()))
            }
        );
    }
}

#[test]
fn a_chunks_head_is_its_size_in_hexadecimal() {
    for (len, expected) in [
        (1, "1\r\n"),
        (10, "a\r\n"),
        (255, "ff\r\n"),
        (256, "100\r\n"),
        (65_536, "10000\r\n"),
    ] {
        let mut out = BytesMut::new();
        write_chunk_head(len, &mut out);
        assert_eq!(out, expected);
    }
    let mut out = BytesMut::new();
    write_chunk_head(usize::MAX, &mut out);
    assert_eq!(out, format!("{:x}\r\n", usize::MAX).as_str());
}

#[test]
fn every_fault_has_its_words() {
    let rows = [
        (BodyFault::ChunkSize, "bad chunk size"),
        (BodyFault::ChunkLine, "chunk line too long"),
        (BodyFault::ChunkExtension, "bad chunk extension"),
        (BodyFault::ChunkLineEnd, "chunk line does not end with CRLF"),
        (BodyFault::ChunkEnd, "chunk is not followed by CRLF"),
        (BodyFault::Trailer, "bad trailer field"),
        (BodyFault::TrailersTooLarge, "trailers too large"),
        (BodyFault::Specks, "too many tiny chunks"),
        (BodyFault::Truncated, "request ends before its body does"),
    ];
    for (fault, words) in rows {
        assert_eq!(fault.detail(), words, "{fault:?}");
    }
}
