//! A gRPC server on h2 that does what a call's plan says and writes everything down.
//!
//! It looks only at the plan that the call's head names and at the stamps of its messages; it knows nothing of proxies. Every
//! connection ends by GOAWAY after some hundred calls, as servers with a maximum age do it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::book::{Book, Entry};
use crate::plan::{Method, Plan, Side, Wrong};

/// The field that says which call it is: `SEED.ID`.
pub const CALL: &str = "x-ledger-call";
/// What the backend puts on its heads and its trailers, so that its own word is known from a proxy's.
pub const OWN: &str = "x-ledger-id";

/// Why a call was left whose request ended cleanly inside a message.
const TORN: &str = "its request ended inside a message";

/// Serves for ever.
pub async fn serve(port: u16, streams: u32, book: &Path) -> std::io::Result<()> {
    let book = Arc::new(Book::open(book)?);
    book.write(&Entry::Started);
    let listener = listen(port)?;
    let mut age = fastrand::Rng::new();
    loop {
        let (socket, _) = listener.accept().await?;
        let calls = age.u32(300..3000);
        tokio::spawn(connection(socket, streams, calls, Arc::clone(&book)));
    }
}

/// The port may still be warm from a process that was killed a moment ago.
fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    socket.listen(1024)
}

async fn connection(socket: TcpStream, streams: u32, calls: u32, book: Arc<Book>) {
    let _ = socket.set_nodelay(true);
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(streams)
        // Late frames and resets of calls whose clients leave are this trial's daily bread.
        .max_concurrent_reset_streams(4096)
        .max_pending_accept_reset_streams(4096)
        .max_local_error_reset_streams(None);
    let Ok(mut connection) = builder.handshake(socket).await else {
        return;
    };
    let mut seen = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(call(request, respond, Arc::clone(&book)));
        seen += 1;
        if seen == calls {
            connection.graceful_shutdown();
        }
    }
}

async fn call(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, book: Arc<Book>) {
    let named = request.headers().get(CALL).and_then(|value| {
        let (seed, id) = value.to_str().ok()?.split_once('.')?;
        Some((seed.parse().ok()?, id.parse().ok()?))
    });
    let Some((seed, id)) = named else {
        book.write(&Entry::Wrong(0, "a call without a plan".to_owned()));
        respond.send_reset(Reason::PROTOCOL_ERROR);
        return;
    };
    book.write(&Entry::Begun(id));
    let plan = Plan::of(seed, id);
    let right = plan.method.path() == request.uri().path()
        && request
            .headers()
            .get("te")
            .is_some_and(|te| te == "trailers");
    if !right {
        book.write(&Entry::Wrong(
            id,
            format!("a head that is not the plan's: {request:?}"),
        ));
    }
    if let Err(why) = follow(&plan, request.into_body(), respond, &book).await {
        if why == TORN {
            book.write(&Entry::Wrong(
                id,
                "half a message was called whole".to_owned(),
            ));
        }
        book.write(&Entry::Left(id, why));
    }
}

/// Does what the plan says. `Err`: the peer ended it first.
async fn follow(
    plan: &Plan,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    book: &Book,
) -> Result<(), String> {
    let wanted = plan.early.unwrap_or(u32::MAX);
    let mut messages = Messages::default();
    let mut read = 0;
    let whole = loop {
        if read >= wanted {
            break false;
        }
        match messages.next(&mut body).await? {
            Some(message) => {
                if let Err(wrong) = plan.check(Side::Request, read, &message) {
                    book.write(&Entry::Wrong(
                        plan.id,
                        format!("request message {read}: {wrong}"),
                    ));
                    if wrong == Wrong::TooMany {
                        return Err("too many messages".to_owned());
                    }
                }
                read += 1;
            }
            None => break true,
        }
    };
    if whole {
        book.write(&Entry::Read(plan.id, read));
        if read != plan.requests {
            let what = format!(
                "a request of {read} messages, not {}, was called whole",
                plan.requests
            );
            book.write(&Entry::Wrong(plan.id, what));
        }
    }
    rest(plan, &mut respond).await?;
    let trailers = trailers(plan);
    let mut head = Response::builder()
        .status(200)
        .header("content-type", "application/grpc+proto")
        .header(OWN, plan.id);
    if plan.answers == 0 && plan.code != 0 && plan.method != Method::Stream {
        // Trailers-only: the head is the end.
        for (name, value) in &trailers {
            head = head.header(name, value);
        }
        let head = head.body(()).expect("these fields are good");
        book.write(&Entry::Answered(plan.id, 0, plan.code));
        respond.send_response(head, true).map_err(said)?;
        return Ok(());
    }
    let head = head.body(()).expect("these fields are good");
    let mut out = respond.send_response(head, false).map_err(said)?;
    for at in 0..plan.answers {
        if plan.method == Method::Stream && at == plan.answers / 2 {
            rest_of_stream(plan, &mut out).await?;
        }
        let mut bytes = Vec::new();
        caller::frame(&plan.message(Side::Answer, at), &mut bytes);
        send(&mut out, Bytes::from(bytes)).await?;
    }
    book.write(&Entry::Answered(plan.id, plan.answers, plan.code));
    out.send_trailers(trailers).map_err(said)?;
    Ok(())
}

fn said(error: h2::Error) -> String {
    error.to_string()
}

/// Rests before the answer, if the plan says so, unless the peer leaves.
async fn rest(plan: &Plan, respond: &mut SendResponse<Bytes>) -> Result<(), String> {
    if plan.rest_ms == 0 {
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(plan.rest_ms)) => Ok(()),
        gone = std::future::poll_fn(|cx| respond.poll_reset(cx)) => Err(format!("reset: {gone:?}")),
    }
}

async fn rest_of_stream(plan: &Plan, out: &mut SendStream<Bytes>) -> Result<(), String> {
    if plan.rest_ms == 0 {
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(plan.rest_ms)) => Ok(()),
        gone = std::future::poll_fn(|cx| out.poll_reset(cx)) => Err(format!("reset: {gone:?}")),
    }
}

fn trailers(plan: &Plan) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(plan.code));
    trailers.insert(OWN, HeaderValue::from(plan.id));
    if plan.code != 0 {
        let message = format!("call%20{}%20was%20to%20fail", plan.id);
        let message = message.parse().expect("it is ASCII");
        trailers.insert("grpc-message", message);
    }
    trailers
}

/// Sends as the window allows.
async fn send(out: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), String> {
    while !bytes.is_empty() {
        out.reserve_capacity(bytes.len());
        let capacity = match std::future::poll_fn(|cx| out.poll_capacity(cx)).await {
            Some(Ok(capacity)) => capacity,
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err("it takes no more".to_owned()),
        };
        let piece = bytes.split_to(capacity.min(bytes.len()));
        out.send_data(piece, false).map_err(said)?;
    }
    Ok(())
}

/// Messages out of a request's DATA.
#[derive(Default)]
struct Messages {
    unread: BytesMut,
}

impl Messages {
    async fn next(&mut self, body: &mut RecvStream) -> Result<Option<Bytes>, String> {
        loop {
            if let Some(&[_, a, b, c, d]) = self.unread.first_chunk::<5>() {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                if self.unread.len() >= 5 + length {
                    return Ok(Some(self.unread.split_to(5 + length).freeze().slice(5..)));
                }
            }
            match body.data().await {
                Some(Ok(bytes)) => {
                    self.unread.extend_from_slice(&bytes);
                    body.flow_control()
                        .release_capacity(bytes.len())
                        .map_err(said)?;
                }
                Some(Err(error)) => return Err(error.to_string()),
                None if self.unread.is_empty() => return Ok(None),
                None => return Err(TORN.to_owned()),
            }
        }
    }
}
