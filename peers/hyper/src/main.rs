//! A peer for the trials: tonic-web's layer in front of hyper's pooling client, which sends every call to one h2c backend.
//!
//! `peer-hyper LISTEN-PORT BACKEND-PORT`, both on loopback; one thread. This is what a Rust program does that translates
//! gRPC-Web itself: bodies stream both ways, trailers are kept, a call that cannot be sent ends as UNAVAILABLE. Clients come
//! with HTTP/1.1 or, told by their first bytes, with HTTP/2, where gRPC passes as it is. Plain use of the libraries: what
//! differs from their defaults is said at the line.

use std::convert::Infallible;
use std::env;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::uri::{Authority, Parts, Scheme};
use http::{Request, Response, Uri, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tonic::Status;
use tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower_layer::Layer;
use tower_service::Service;

/// The same as the other peers have.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Plain gRPC to the backend.
#[derive(Clone)]
struct ToBackend {
    client: Client<HttpConnector, Body>,
    backend: Authority,
}

impl Service<Request<Body>> for ToBackend {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut target = Parts::default();
        target.scheme = Some(Scheme::HTTP);
        target.authority = Some(self.backend.clone());
        target.path_and_query = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from_parts(target).unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
        // HTTP/2 has its own, and these are the client's and not the backend's.
        request.headers_mut().remove(http::header::HOST);
        request.headers_mut().remove(http::header::CONNECTION);
        let answer = self.client.request(request);
        Box::pin(async move {
            Ok(match answer.await {
                Ok(response) => response.map(Body::new),
                Err(error) => Status::unavailable(error.to_string()).into_http(),
            })
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut ports = env::args().skip(1).map(|port| port.parse::<u16>().ok());
    let (Some(Some(listen)), Some(Some(backend))) = (ports.next(), ports.next()) else {
        eprintln!("usage: peer-hyper LISTEN-PORT BACKEND-PORT");
        std::process::exit(2);
    };
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        // Without TLS there is nothing that would negotiate it.
        .http2_only(true)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .build(connector);
    let backend = format!("127.0.0.1:{backend}")
        .parse()
        .expect("an authority");
    let service = GrpcWebLayer::new().layer(ToBackend { client, backend });
    let listener = TcpListener::bind(("127.0.0.1", listen))
        .await
        .expect("a free port");
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        // Nagle's delay is nobody's wish here.
        let _ = socket.set_nodelay(true);
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http1().timer(TokioTimer::new());
            server
                .http2()
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                // The same as the other peers have; hyper's own is 200.
                .max_concurrent_streams(1000);
            // A client that leaves is no news.
            let _ = server.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}
