//! The real binary between real peers: grpcio, tonic and etcd behind it, curl, buf and raw sockets in front.
//!
//! Owns what a caller sees through sockets and processes; what happens inside is the business of the rooms' own tests.
//! Nothing here is mocked, every program listens on a free port of the loopback address and is stopped by its own id.
//! `scripts/tools` installs the peers. `WHARF_BIN` puts another binary in the place of the one that cargo built.
//! Wire formats: grpc/grpc `doc/PROTOCOL-WEB.md` and `doc/PROTOCOL-HTTP2.md`.

#![allow(
    unreachable_pub,
    reason = "a test binary has no outside that could reach in"
)]

mod client;
mod message;
mod peers;

mod apart;
mod curl;
mod echo;
mod endings;
mod etcd;
mod leaving;
mod native;
mod sharing;
mod transport;
