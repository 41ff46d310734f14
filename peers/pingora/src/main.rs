//! A peer for the trials: Pingora with its gRPC-Web bridge in front of one h2c backend.
//!
//! `peer-pingora LISTEN-PORT BACKEND-PORT`, both on loopback; ends with SIGTERM. Plain use of the library: what differs from
//! its defaults is said at the line.

use std::env;

use async_trait::async_trait;
use pingora_core::modules::http::HttpModules;
use pingora_core::modules::http::grpc_web::{GrpcWeb, GrpcWebBridge};
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

/// The same as the other peers have.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// By default every call has a connection of its own. The trials are about calls that share one.
const STREAMS_PER_CONNECTION: usize = 10_000;

struct ToBackend {
    port: u16,
}

#[async_trait]
impl ProxyHttp for ToBackend {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, modules: &mut HttpModules) {
        modules.add_module(Box::new(GrpcWeb));
    }

    async fn early_request_filter(
        &self,
        session: &mut Session,
        _ctx: &mut (),
    ) -> pingora_core::Result<()> {
        let modules = &mut session.downstream_modules_ctx;
        if let Some(bridge) = modules.get_mut::<GrpcWebBridge>() {
            bridge.init();
        }
        Ok(())
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _ctx: &mut (),
    ) -> pingora_core::Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(("127.0.0.1", self.port), false, String::new());
        // HTTP/2 without TLS: known, not negotiated.
        peer.options.set_http_version(2, 2);
        peer.options.max_h2_streams = STREAMS_PER_CONNECTION;
        peer.options.h2_stream_window_size = Some(STREAM_WINDOW_BYTES);
        peer.options.h2_connection_window_size = Some(CONNECTION_WINDOW_BYTES);
        Ok(Box::new(peer))
    }
}

fn main() {
    let mut ports = env::args().skip(1).map(|port| port.parse().ok());
    let (Some(Some(listen)), Some(Some(backend))) = (ports.next(), ports.next()) else {
        eprintln!("usage: peer-pingora LISTEN-PORT BACKEND-PORT");
        std::process::exit(2);
    };
    let listen: u16 = listen;
    let configuration = ServerConf {
        threads: 1,
        // SIGTERM ends it at once.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, configuration);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, ToBackend { port: backend });
    service.add_tcp(&format!("127.0.0.1:{listen}"));
    server.add_service(service);
    server.run_forever();
}
