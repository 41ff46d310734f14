//! The Echo service of `tests/peers/echo.proto` in two gRPC stacks, and its messages.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::program::{Program, START};
use super::wharf::tools;
use crate::message::{self, Message};

pub const SAY: &str = "/wharf.test.v1.Echo/Say";
pub const STREAM: &str = "/wharf.test.v1.Echo/Stream";
pub const UPLOAD: &str = "/wharf.test.v1.Echo/Upload";
pub const TALK: &str = "/wharf.test.v1.Echo/Talk";

/// Which gRPC stack stands behind wharf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// The C core, as Python ships it.
    Grpcio,
    /// hyper and h2.
    Tonic,
}

/// A running backend.
#[derive(Debug)]
pub struct Echo {
    pub program: Program,
    pub address: SocketAddr,
}

impl Echo {
    /// The one that all tests of this process share while any of them holds it.
    pub fn shared(stack: Stack) -> Arc<Self> {
        static GRPCIO: Mutex<Weak<Echo>> = Mutex::new(Weak::new());
        static TONIC: Mutex<Weak<Echo>> = Mutex::new(Weak::new());
        let mut slot = match stack {
            Stack::Grpcio => GRPCIO.lock(),
            Stack::Tonic => TONIC.lock(),
        }
        .unwrap_or_else(std::sync::PoisonError::into_inner);
        slot.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start(stack, &[]));
            *slot = Arc::downgrade(&started);
            started
        })
    }

    /// One of the test's own, which it may kill.
    pub fn start(stack: Stack, flags: &[&str]) -> Self {
        let mut command = match stack {
            Stack::Grpcio => {
                let mut command = Command::new(tools().join("py/bin/python"));
                command.arg(peers().join("grpcio_backend.py"));
                command
            }
            Stack::Tonic => Command::new(tonic_backend()),
        };
        let program = Program::start(&format!("{stack:?}"), command.args(flags));
        let port: u16 = program.wait_line(START, |line| line.strip_prefix("PORT ")?.parse().ok());
        Self {
            program,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }

    /// Waits until the backend says that the caller of that call has left; tells when it saw that, and how many messages
    /// it had sent.
    pub fn wait_cancelled(&self, id: &str) -> (SystemTime, u32) {
        let mark = format!("CANCELLED {id} ");
        self.program.wait_line(Duration::from_secs(10), |line| {
            let (nanoseconds, sent) = line.strip_prefix(&mark)?.split_once(" sent=")?;
            let since = Duration::from_nanos(nanoseconds.parse().ok()?);
            Some((UNIX_EPOCH + since, sent.parse().ok()?))
        })
    }
}

/// The folder of the peers' sources.
pub fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers")
}

/// Built once per process; a crate of its own, so that its runtime never comes near the product's dependencies.
fn tonic_backend() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tonic-backend");
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--manifest-path"])
            .arg(peers().join("tonic-backend/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .output()
            .expect("cargo runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        target.join("debug/wharf-tonic-backend")
    })
}

/// How a call is to end.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    pub code: u32,
    pub message: String,
    pub details: Vec<u8>,
}

impl Failure {
    /// That code and message, without details.
    pub fn new(code: u32, message: &str) -> Self {
        Self {
            code,
            message: message.to_owned(),
            details: Vec::new(),
        }
    }
}

/// `SayRequest`.
#[derive(Clone, Debug, Default)]
pub struct Say {
    pub text: String,
    pub payload: Vec<u8>,
    pub delay_ms: u32,
    pub failure: Option<Failure>,
    pub id: String,
}

impl Say {
    /// Just that text.
    pub fn text(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            ..Self::default()
        }
    }

    /// Encoded.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Message::new()
            .bytes(1, &self.text)
            .bytes(2, &self.payload)
            .uint(3, u64::from(self.delay_ms));
        if let Some(failure) = &self.failure {
            out = out.failure(4, failure);
        }
        out.bytes(5, &self.id).done()
    }
}

/// `SayReply`.
#[derive(Clone, Debug)]
pub struct Said {
    pub text: String,
    pub payload: Vec<u8>,
    pub metadata: Vec<(String, Vec<u8>)>,
    pub deadline_ms: i64,
}

impl Said {
    /// Decoded.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let metadata = message::all_bytes(bytes, 3)
            .iter()
            .map(|field| (message::text(field, 1), message::bytes(field, 2)))
            .collect();
        let zigzag = message::number(bytes, 4);
        Self {
            text: message::text(bytes, 1),
            payload: message::bytes(bytes, 2),
            metadata,
            deadline_ms: (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64),
        }
    }

    /// Every value that the backend got under that name.
    pub fn got(&self, name: &str) -> Vec<&[u8]> {
        self.metadata
            .iter()
            .filter(|(at, _)| at == name)
            .map(|(_, value)| value.as_slice())
            .collect()
    }
}

/// `StreamRequest`.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub count: u32,
    pub interval_ms: u32,
    pub size: u32,
    pub failure: Option<Failure>,
    pub hold_after: u32,
    pub id: String,
}

impl Stream {
    /// Encoded.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Message::new()
            .uint(1, u64::from(self.count))
            .uint(2, u64::from(self.interval_ms))
            .uint(3, u64::from(self.size));
        if let Some(failure) = &self.failure {
            out = out.failure(4, failure);
        }
        out.uint(5, u64::from(self.hold_after))
            .bytes(6, &self.id)
            .done()
    }
}

/// The `number` of a `StreamReply`.
pub fn number(message: &[u8]) -> u32 {
    message::number(message, 1) as u32
}
