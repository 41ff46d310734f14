//! What a program says: lines of JSON on stdout, each flushed at once, because somebody acts on them the moment they come.
//! Complaints for people go to stderr.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

/// One line. Nobody listening any more is no reason to fail: who started us has left, and we end by time.
pub(crate) fn line(value: &impl Serialize) {
    let mut out = io::stdout().lock();
    if let Ok(text) = serde_json::to_string(value) {
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }
}

/// A program that serves says where, as soon as it can be reached there.
pub(crate) fn listening(address: SocketAddr) {
    line(&json!({ "listening": address.to_string() }));
}

/// Something happened that the one who started us acts on: `{"event": name, …}` with the fields of `more`.
pub(crate) fn event(name: &str, more: Value) {
    let mut value = json!({ "event": name });
    if let (Some(into), Value::Object(more)) = (value.as_object_mut(), more) {
        into.extend(more);
    }
    line(&value);
}

/// A program's end: what went wrong, for people.
pub(crate) fn exit(ended: io::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loopback: {error}");
            ExitCode::FAILURE
        }
    }
}
