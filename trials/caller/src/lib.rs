//! gRPC-Web over HTTP/1.1 as a careful client speaks it: it believes nothing that an answer does not prove.
//!
//! Owns a connection's bytes, both framings of a body, both forms of gRPC-Web, and the words in which an answer breaks off.
//! It never judges a call: what a status or a cut means is for the trial that made it.

mod answer;
mod connection;
mod measure;
mod request;

pub use answer::{Body, Broken, Frame, Head, Place};
pub use connection::{Connection, Reader};
pub use measure::{Line, descriptors, median, resident_kib};
pub use request::{Form, Framing, frame, head, text};
