//! gRPC's statuses: the 17 codes, the three tables between gRPC, HTTP and HTTP/2, and the repair of `grpc-message`.
//!
//! Sources: grpc/grpc `doc/statuscodes.md`, `doc/PROTOCOL-HTTP2.md` ("Errors", "Status-Message"),
//! `doc/http-grpc-status-mapping.md`. This file is the only truth about them.

use std::borrow::Cow;
use std::fmt;

/// A gRPC status code. The 17 of the specification have names; others (a backend may send 99) are kept as they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(u32);

/// A code and what it says to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// Plain UTF-8, not yet percent-encoded; may be empty.
    pub message: Cow<'static, str>,
}

impl Status {
    /// A status of that code and message.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl Code {
    /// Not an error.
    pub const OK: Self = Self(0);
    /// The call was cancelled, usually by its caller.
    pub const CANCELLED: Self = Self(1);
    /// Nobody knows.
    pub const UNKNOWN: Self = Self(2);
    /// The request makes no sense, whatever the state of the system.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// Time ran out first.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// What was asked for is not there.
    pub const NOT_FOUND: Self = Self(5);
    /// What was to be made is there already.
    pub const ALREADY_EXISTS: Self = Self(6);
    /// The caller may not do that.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// Something has run out, or is too large.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// The system is not in the state that the call needs.
    pub const FAILED_PRECONDITION: Self = Self(9);
    /// Somebody else was there at the same time.
    pub const ABORTED: Self = Self(10);
    /// Past the valid range.
    pub const OUT_OF_RANGE: Self = Self(11);
    /// There is no such method here.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// An invariant is broken.
    pub const INTERNAL: Self = Self(13);
    /// Not now; trying again may help.
    pub const UNAVAILABLE: Self = Self(14);
    /// Data is lost for good.
    pub const DATA_LOSS: Self = Self(15);
    /// The caller did not say who it is.
    pub const UNAUTHENTICATED: Self = Self(16);

    /// The code of that number, one of the 17 or not.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number, as it stands in `grpc-status`.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Its name in the specification's spelling; `None` if it is not one of the 17.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "OK",
            1 => "CANCELLED",
            2 => "UNKNOWN",
            3 => "INVALID_ARGUMENT",
            4 => "DEADLINE_EXCEEDED",
            5 => "NOT_FOUND",
            6 => "ALREADY_EXISTS",
            7 => "PERMISSION_DENIED",
            8 => "RESOURCE_EXHAUSTED",
            9 => "FAILED_PRECONDITION",
            10 => "ABORTED",
            11 => "OUT_OF_RANGE",
            12 => "UNIMPLEMENTED",
            13 => "INTERNAL",
            14 => "UNAVAILABLE",
            15 => "DATA_LOSS",
            16 => "UNAUTHENTICATED",
            _ => return None,
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "CODE_{}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
