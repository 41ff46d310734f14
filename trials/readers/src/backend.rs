//! A gRPC server on h2 that says a word, pours without end into whoever takes it, and takes what it is sent.
//!
//! It runs in a thread with a runtime of its own, so that what it has to do is not charged to the calls that are measured,
//! and counts what is open and what went out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// One message, one answer.
pub const SAY: &str = "/trials.readers.v1.Readers/Say";
/// Messages of [`SIZE`] bytes, to [`TOTAL`] bytes in all.
pub const POUR: &str = "/trials.readers.v1.Readers/Pour";
/// Takes messages until there are no more.
pub const TAKE: &str = "/trials.readers.v1.Readers/Take";
pub const SIZE: &str = "x-readers-size";
pub const TOTAL: &str = "x-readers-total";

/// What is going on at the backend.
#[derive(Debug, Default)]
pub struct Counts {
    /// Calls of [`POUR`] and [`TAKE`] that have begun, and that are open.
    pub begun: AtomicU64,
    pub open: AtomicU64,
    /// Bytes that were handed to h2, which holds no more than there is window for.
    pub poured: AtomicU64,
    /// Connections that were accepted.
    pub connections: AtomicU64,
}

/// Starts the thread; it ends with the process.
pub fn start(port: u16) -> std::io::Result<Arc<Counts>> {
    let counts = Arc::new(Counts::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = {
        let _inside = runtime.enter();
        listen(port)?
    };
    let own = Arc::clone(&counts);
    std::thread::spawn(move || runtime.block_on(serve(listener, own)));
    Ok(counts)
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    socket.listen(1024)
}

async fn serve(listener: TcpListener, counts: Arc<Counts>) {
    while let Ok((socket, _)) = listener.accept().await {
        counts.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(connection(socket, Arc::clone(&counts)));
    }
}

async fn connection(socket: TcpStream, counts: Arc<Counts>) {
    let _ = socket.set_nodelay(true);
    let mut builder = h2::server::Builder::new();
    // All readers may share one connection: that is where one can block another.
    builder
        .max_concurrent_streams(10_000)
        .max_concurrent_reset_streams(4096)
        .max_pending_accept_reset_streams(4096);
    let Ok(mut connection) = builder.handshake(socket).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(call(request, respond, Arc::clone(&counts)));
    }
}

/// Counts a call for as long as it is open.
struct Open(Arc<Counts>);

impl Open {
    fn new(counts: &Arc<Counts>) -> Self {
        counts.begun.fetch_add(1, Ordering::Relaxed);
        counts.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn call(request: Request<RecvStream>, respond: SendResponse<Bytes>, counts: Arc<Counts>) {
    let path = request.uri().path().to_owned();
    let number = |name: &str| -> usize {
        let value = request.headers().get(name);
        let number = value.and_then(|value| value.to_str().ok()?.parse().ok());
        number.unwrap_or_default()
    };
    let (size, total) = (number(SIZE), number(TOTAL));
    let body = request.into_body();
    // Whoever leaves has left: there is nobody to tell.
    let _ = match path.as_str() {
        POUR => pour(respond, size, total, &counts).await,
        TAKE => {
            let _open = Open::new(&counts);
            say(body, respond).await
        }
        _ => say(body, respond).await,
    };
}

fn head() -> Response<()> {
    let head = Response::builder().header("content-type", "application/grpc+proto");
    head.body(()).expect("these fields are good")
}

fn ok() -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from(0))])
}

async fn say(mut body: RecvStream, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    while let Some(bytes) = body.data().await {
        body.flow_control().release_capacity(bytes?.len())?;
    }
    let mut out = respond.send_response(head(), false)?;
    out.send_data(message(32), false)?;
    out.send_trailers(ok())
}

async fn pour(
    mut respond: SendResponse<Bytes>,
    size: usize,
    total: usize,
    counts: &Arc<Counts>,
) -> Result<(), h2::Error> {
    let _open = Open::new(counts);
    let mut out = respond.send_response(head(), false)?;
    let message = message(size);
    let mut poured = 0;
    while poured < total {
        // A DATA frame of its own for each message that fits one.
        let mut left = message.clone();
        while !left.is_empty() {
            let capacity = room(&mut out, left.len()).await?;
            let piece = left.split_to(capacity.min(left.len()));
            counts
                .poured
                .fetch_add(piece.len() as u64, Ordering::Relaxed);
            out.send_data(piece, false)?;
        }
        poured += message.len();
    }
    out.send_trailers(ok())
}

async fn room(out: &mut SendStream<Bytes>, wanted: usize) -> Result<usize, h2::Error> {
    out.reserve_capacity(wanted);
    if out.capacity() > 0 {
        return Ok(out.capacity());
    }
    match std::future::poll_fn(|cx| out.poll_capacity(cx)).await {
        Some(capacity) => capacity,
        None => Err(h2::Reason::CANCEL.into()),
    }
}

fn message(size: usize) -> Bytes {
    let mut out = Vec::with_capacity(5 + size);
    caller::frame(&vec![7; size], &mut out);
    out.into()
}
