//! hyper's reading of a chunked body, and by what we are stricter than it. Not a target: `h1_body` asks it.
//!
//! Only the fuzz crate has hyper, so the plain test of the corpus goes without this second opinion.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use wharf::wire::http1::{BodyDecoder, BodyFault, BodyLimits, Framing, Step};

/// Inputs up to this length meet none of either side's limits on extensions and trailers, bytes.
const BYTES_MAX: usize = 8 << 10;

/// Why we refuse what hyper takes. Whatever is not here is taken by both or by none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stricter {
    /// White space behind a size and no extension behind that (H1-37).
    SpaceBehindSize,
    /// More digits than 2^63 can need: leading zeros.
    ManyDigits,
    /// A control character, DEL or a byte beyond ASCII in an extension (H1-35).
    ControlInExtension,
    /// A line over the limit (H1-41).
    LongLine,
    /// A line of the trailer section that a bare LF ends.
    BareLfInTrailers,
}

/// Holds what we make of `input` as a chunked body (`content` up to `end`) against what hyper makes of it.
pub fn compare(input: &[u8], content: &[u8], end: Option<usize>) {
    if input.len() > BYTES_MAX {
        return;
    }
    let step = 1 + usize::from(input.last().copied().unwrap_or_default());
    match (theirs(input, step), end) {
        (Some((their_content, their_end)), Some(end)) => {
            assert_eq!(content, their_content, "not the same content");
            assert_eq!(end, their_end, "not the same end");
        }
        (None, Some(_)) => panic!("we take what hyper refuses"),
        (Some(_), None) => {
            let why = stricter(input);
            assert!(
                why.is_some(),
                "hyper takes what we refuse, for no reason that has a name"
            );
        }
        (None, None) => {}
    }
}

/// By which of our rules the byte was wrong at which we stopped.
fn stricter(input: &[u8]) -> Option<Stricter> {
    let mut decoder = BodyDecoder::new(Framing::Chunked, BodyLimits::default());
    for (at, byte) in input.iter().enumerate() {
        let mut unread = std::slice::from_ref(byte);
        let fault = loop {
            match decoder.decode(unread) {
                Ok(Step::Data { skip, len }) => unread = &unread[skip + len..],
                Ok(Step::More { .. } | Step::End { .. }) => break None,
                Err(fault) => break Some(fault),
            }
        };
        let before = at.checked_sub(1).map(|at| input[at]);
        let Some(fault) = fault else { continue };
        match fault {
            BodyFault::ChunkSize if *byte == b'\r' && matches!(before, Some(b' ' | b'\t')) => {
                return Some(Stricter::SpaceBehindSize);
            }
            BodyFault::ChunkSize if byte.is_ascii_hexdigit() => {
                return Some(Stricter::ManyDigits);
            }
            BodyFault::ChunkExtension if !matches!(byte, b'\t' | b'\n' | b' '..=b'~') => {
                return Some(Stricter::ControlInExtension);
            }
            BodyFault::ChunkLine => return Some(Stricter::LongLine),
            BodyFault::Trailer if *byte == b'\n' => return Some(Stricter::BareLfInTrailers),
            _ => return None,
        }
    }
    None
}

/// The content and where the body ended; `None`: it was refused, or has no end.
fn theirs(input: &[u8], step: usize) -> Option<(Vec<u8>, usize)> {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let wire = Wire {
        bytes: [HEAD, input].concat(),
        at: 0,
        step,
    };
    let read = Rc::new(RefCell::new(None));
    let service = service_fn(|request: Request<Incoming>| {
        let read = Rc::clone(&read);
        Box::pin(async move {
            *read.borrow_mut() = collect(request.into_body()).await;
            Ok::<_, Infallible>(Response::new(Nothing))
        })
    });
    let mut connection = http1::Builder::new()
        .keep_alive(false)
        .half_close(true)
        .header_read_timeout(None)
        .serve_connection(wire, service);
    let cx = &mut Context::from_waker(Waker::noop());
    // There is always something to read, if only the end, so it has always something to do.
    let done = (0..100 + 4 * input.len()).any(|_| connection.poll_without_shutdown(cx).is_ready());
    assert!(done, "hyper waits for ever");
    let parts = connection.into_parts();
    let used = parts.io.at - parts.read_buf.len();
    let content = read.borrow_mut().take()?;
    Some((content, used - HEAD.len()))
}

async fn collect(mut body: Incoming) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.ok()?.into_data() {
            content.extend_from_slice(&data);
        }
    }
    Some(content)
}

/// What hyper reads from: `step` bytes at a time. What it writes is nobody's business.
struct Wire {
    bytes: Vec<u8>,
    at: usize,
    step: usize,
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.bytes[self.at..];
        let n = rest.len().min(self.step).min(into.remaining());
        into.put_slice(&rest[..n]);
        self.at += n;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// An answer without content.
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}
