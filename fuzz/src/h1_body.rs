//! Bodies of requests: the same at every split, never more than there is, what hyper makes of them unless a rule with a name
//! is stricter, and what we write we read.

use bytes::BytesMut;
use wharf::wire::http1::{
    BodyDecoder, BodyFault, BodyLimits, CHUNK_END, Framing, LAST_CHUNK, Step, write_chunk_head,
};

/// Reads `input` as a chunked body, and as one whose length is its first byte.
pub fn check(input: &[u8]) {
    let read = check_framing(Framing::Chunked, input);
    #[cfg(not(test))]
    super::hyper_body::compare(input, &read.content, read.end);
    drop(read);
    if let Some((&length, rest)) = input.split_first() {
        let read = check_framing(Framing::Length(u64::from(length)), rest);
        let expected = rest.get(..usize::from(length)).unwrap_or(rest);
        assert_eq!(read.content, expected);
        assert_eq!(read.end.is_some(), rest.len() >= usize::from(length));
    }
    check_writing(input);
}

#[derive(Debug, PartialEq, Eq)]
struct Read {
    content: Vec<u8>,
    end: Option<usize>,
    fault: Option<BodyFault>,
}

fn check_framing(framing: Framing, input: &[u8]) -> Read {
    let whole = read(framing, [input].into_iter());
    assert!(whole.content.len() <= input.len());
    assert!(whole.end.is_none_or(|end| end <= input.len()));
    assert_eq!(read(framing, input.chunks(1)), whole, "byte by byte");
    let split = usize::from(input.last().copied().unwrap_or_default()) % (input.len() + 1);
    let (one, two) = input.split_at(split);
    assert_eq!(
        read(framing, [one, two].into_iter()),
        whole,
        "in two at {split}"
    );
    // The end of a body does not depend on what comes after it.
    if let Some(end) = whole.end {
        assert_eq!(
            read(framing, input.get(..end).into_iter()),
            whole,
            "cut at its end"
        );
    }
    whole
}

fn read<'a>(framing: Framing, pieces: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut decoder = BodyDecoder::new(framing, BodyLimits::default());
    let mut content = Vec::new();
    let mut taken = 0;
    let mut end = None;
    let mut fault = None;
    'pieces: for mut unread in pieces {
        loop {
            match decoder.decode(unread) {
                Ok(Step::Data { skip, len }) => {
                    assert!(len > 0);
                    let used = skip + len;
                    content.extend_from_slice(unread.get(skip..used).expect("content is there"));
                    unread = unread.get(used..).unwrap_or_default();
                    taken += used;
                }
                Ok(Step::More { used }) => {
                    assert_eq!(used, unread.len());
                    taken += used;
                    break;
                }
                Ok(Step::End { used }) => {
                    end = Some(taken + used);
                    break 'pieces;
                }
                Err(why) => {
                    fault = Some(why);
                    break 'pieces;
                }
            }
        }
    }
    assert_eq!(decoder.is_done(), decoder.at_eof().is_ok());
    // The last byte of content may be the last of the body: then nobody needed to ask.
    if decoder.is_done() {
        end = end.or(Some(taken));
    }
    Read {
        content,
        end,
        fault,
    }
}

fn check_writing(content: &[u8]) {
    let mut out = BytesMut::new();
    let size = 1 + content.len() / 5;
    for chunk in content.chunks(size) {
        write_chunk_head(chunk.len(), &mut out);
        out.extend_from_slice(chunk);
        out.extend_from_slice(CHUNK_END);
    }
    out.extend_from_slice(LAST_CHUNK);
    let read = read(Framing::Chunked, [&out[..]].into_iter());
    assert_eq!(read.content, content);
    assert_eq!(read.end, Some(out.len()));
}
