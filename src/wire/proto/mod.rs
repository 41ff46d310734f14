//! Protobuf messages that wharf itself reads and writes, kept by hand beside their `.proto` files.
//!
//! Owns the structs only. A message that merely crosses the proxy is never decoded.

pub mod demo;
