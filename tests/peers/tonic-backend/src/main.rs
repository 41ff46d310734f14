//! A real gRPC server on tonic: the Echo service of `echo.proto` and health.
//!
//! Prints `PORT n` as its first line, then `CANCELLED id nanoseconds-since-1970 sent=n` whenever a caller leaves a call of
//! Say or Stream before its end. Ends when its standard input does, so that it never outlives the test that started it.

mod messages;

use std::convert::Infallible;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, HeaderValue};
use tokio::io::AsyncReadExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::codec::{CompressionEncoding, EnabledCompressionEncodings, Streaming};
use tonic::codegen::{BoxFuture, Service};
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::server::{
    ClientStreamingService, Grpc, NamedService, ServerStreamingService, StreamingService,
    UnaryService,
};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use messages::{
    Failure, Field, SayReply, SayRequest, StreamReply, StreamRequest, UploadReply, UploadRequest,
};

fn main() {
    let mut gzip = false;
    let mut port = 0;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--gzip" => gzip = true,
            "--port" => {
                let value = arguments.next().expect("--port N");
                port = value.parse().expect("--port N");
            }
            other => panic!("unknown argument {other}"),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(serve(port, gzip));
}

async fn serve(port: u16, gzip: bool) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let (health, checks) = tonic_health::server::health_reporter();
    health.set_serving::<Echo>().await;
    tokio::spawn(async {
        let mut sink = Vec::new();
        let _ = tokio::io::stdin().read_to_end(&mut sink).await;
        std::process::exit(0);
    });
    print(&format!("PORT {port}"));
    Server::builder()
        .add_service(checks)
        .add_service(Echo { gzip })
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await
        .expect("it serves");
}

fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .expect("somebody reads");
}

/// Says that a call was left, unless it was finished.
struct Watch {
    id: String,
    sent: u32,
    finished: bool,
}

impl Watch {
    fn new(id: String) -> Self {
        Self {
            id,
            sent: 0,
            finished: false,
        }
    }

    fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.finished {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            print(&format!(
                "CANCELLED {} {} sent={}",
                self.id,
                now.as_nanos(),
                self.sent
            ));
        }
    }
}

#[derive(Clone)]
struct Echo {
    gzip: bool,
}

impl NamedService for Echo {
    const NAME: &'static str = "wharf.test.v1.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let gzip = self.gzip;
        // Trailers of an answer that goes well cannot be set through tonic's own traits: they are appended to the body.
        let trailers = trailers(request.headers());
        Box::pin(async move {
            let mut send = EnabledCompressionEncodings::default();
            if gzip {
                send.enable(CompressionEncoding::Gzip);
                // Compresses also for a caller that never asked for it, as a careless server does.
                request
                    .headers_mut()
                    .insert("grpc-accept-encoding", HeaderValue::from_static("gzip"));
            }
            let accept = EnabledCompressionEncodings::default();
            macro_rules! grpc {
                () => {
                    Grpc::new(ProstCodec::default()).apply_compression_config(accept, send)
                };
            }
            let path = request.uri().path().to_owned();
            let mut response = match path.as_str() {
                "/wharf.test.v1.Echo/Say" => grpc!().unary(Say, request).await,
                "/wharf.test.v1.Echo/Stream" => grpc!().server_streaming(Numbers, request).await,
                "/wharf.test.v1.Echo/Upload" => grpc!().client_streaming(Upload, request).await,
                "/wharf.test.v1.Echo/Talk" => grpc!().streaming(Talk, request).await,
                _ => return Ok(Status::unimplemented("no such method").into_http()),
            };
            if response.headers().contains_key("grpc-status") {
                // Trailers-only: the head is all there is.
                response.headers_mut().extend(trailers);
                return Ok(response);
            }
            Ok(response.map(|body| messages::with_trailers(body, trailers)))
        })
    }
}

fn trailers(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::new();
    for (name, value) in headers {
        if name.as_str().starts_with("trail-") {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

/// The fields of the call that are to come back in the head of the answer.
fn head<T>(metadata: &MetadataMap, message: T) -> Response<T> {
    let mut headers = HeaderMap::new();
    for (name, value) in metadata.clone().into_headers().iter() {
        if name.as_str().starts_with("head-") {
            headers.append(name.clone(), value.clone());
        }
    }
    let mut response = Response::new(message);
    *response.metadata_mut() = MetadataMap::from_headers(headers);
    response
}

fn reply(request: SayRequest, metadata: &MetadataMap) -> SayReply {
    let metadata = metadata
        .iter()
        .map(|field| match field {
            KeyAndValueRef::Ascii(name, value) => Field {
                name: name.to_string(),
                value: value.as_bytes().to_vec(),
            },
            KeyAndValueRef::Binary(name, value) => Field {
                name: name.to_string(),
                value: value
                    .to_bytes()
                    .map(|bytes| bytes.to_vec())
                    .unwrap_or_default(),
            },
        })
        .collect();
    SayReply {
        text: request.text,
        payload: request.payload,
        metadata,
        // The stack does not tell; the field itself is among the metadata.
        deadline_ms: -1,
    }
}

fn status(failure: &Failure) -> Status {
    let mut headers = HeaderMap::new();
    if !failure.details.is_empty() {
        let value = STANDARD_NO_PAD.encode(&failure.details);
        headers.insert(
            "grpc-status-details-bin",
            HeaderValue::from_str(&value).expect("base64 is a value"),
        );
    }
    Status::with_metadata(
        Code::from_i32(failure.code),
        failure.message.clone(),
        MetadataMap::from_headers(headers),
    )
}

struct Say;

impl UnaryService<SayRequest> for Say {
    type Response = SayReply;
    type Future = BoxFuture<Response<SayReply>, Status>;

    fn call(&mut self, request: Request<SayRequest>) -> Self::Future {
        Box::pin(async move {
            let (metadata, _, request) = request.into_parts();
            let mut watch = Watch::new(request.id.clone());
            if request.delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(request.delay_ms.into())).await;
            }
            watch.finish();
            match &request.failure {
                Some(failure) => Err(status(failure)),
                None => Ok(head(&metadata, reply(request, &metadata))),
            }
        })
    }
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Numbers;

impl ServerStreamingService<StreamRequest> for Numbers {
    type Response = StreamReply;
    type ResponseStream = Replies<StreamReply>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<StreamRequest>) -> Self::Future {
        Box::pin(async move {
            let (metadata, _, request) = request.into_parts();
            let replies: Self::ResponseStream = Box::pin(messages::unfold(
                (Watch::new(request.id.clone()), request),
                |(mut watch, request)| async move {
                    if watch.sent == request.count {
                        watch.finish();
                        let failure = request.failure.as_ref().map(|failure| Err(status(failure)));
                        return (failure, None);
                    }
                    if request.hold_after > 0 && watch.sent == request.hold_after {
                        std::future::pending::<()>().await;
                    }
                    if request.interval_ms > 0 && watch.sent > 0 {
                        let interval = Duration::from_millis(request.interval_ms.into());
                        tokio::time::sleep(interval).await;
                    }
                    watch.sent += 1;
                    let message = StreamReply {
                        number: watch.sent,
                        payload: vec![0; request.size as usize],
                    };
                    (Some(Ok(message)), Some((watch, request)))
                },
            ));
            Ok(head(&metadata, replies))
        })
    }
}

struct Upload;

impl ClientStreamingService<UploadRequest> for Upload {
    type Response = UploadReply;
    type Future = BoxFuture<Response<UploadReply>, Status>;

    fn call(&mut self, request: Request<Streaming<UploadRequest>>) -> Self::Future {
        Box::pin(async move {
            let (metadata, _, mut requests) = request.into_parts();
            let mut out = UploadReply::default();
            while let Some(request) = requests.message().await? {
                out.messages += 1;
                out.bytes += request.payload.len() as u64;
            }
            Ok(head(&metadata, out))
        })
    }
}

struct Talk;

impl StreamingService<SayRequest> for Talk {
    type Response = SayReply;
    type ResponseStream = Replies<SayReply>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<SayRequest>>) -> Self::Future {
        Box::pin(async move {
            let (metadata, _, requests) = request.into_parts();
            let fields = metadata.clone();
            let replies: Self::ResponseStream = Box::pin(requests.map(move |request| {
                let request = request?;
                match &request.failure {
                    Some(failure) => Err(status(failure)),
                    None => Ok(reply(request, &fields)),
                }
            }));
            Ok(head(&metadata, replies))
        })
    }
}
