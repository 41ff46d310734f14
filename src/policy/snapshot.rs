//! Everything configured, immutable, with a generation number. A core adopts a new one between turns; an exchange ends
//! under the one that it began with (invariant 7).

use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::filter::Filter;
use crate::policy::limits::Limits;
use crate::policy::local::Callee;
use crate::wire::RequestHead;

/// The whole of what was configured.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with every publication.
    pub generation: u64,
    /// Where clients come in. The control thread binds them; the index is the listener's id.
    pub listeners: Vec<Listener>,
    /// First match in this order wins. Shared, because most new snapshots differ in endpoints alone.
    pub routes: Arc<[Route]>,
    /// The filters of what no route takes, and of what never became a request: what is refused there is an answer too, and
    /// a page can read it only if it says so.
    pub unrouted: Arc<[Box<dyn Filter>]>,
    /// Indexed by [`BackendId`].
    pub backends: Vec<Backend>,
    /// The limits of the data path.
    pub limits: Limits,
    /// Where liveness is answered on every listener, e.g. `/healthz`. `None`: nowhere.
    pub live_path: Option<String>,
}

/// A bound address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name in logs.
    pub name: Arc<str>,
    /// Its address; port 0 only in tests.
    pub address: SocketAddr,
    /// What it speaks.
    pub versions: Versions,
}

/// Which versions of HTTP a listener speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// HTTP/1.1, and HTTP/2 with those who begin with its preface.
    #[default]
    Both,
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone.
    Http2,
}

/// Which requests go where.
#[derive(Debug)]
pub struct Route {
    /// Its name in logs.
    pub name: Arc<str>,
    /// Whole segments of the path: `/v1` takes `/v1` and `/v1/x`, not `/v1x`. `/` takes everything. `exact` takes only itself.
    pub path: PathMatch,
    /// What it carries.
    pub kind: RouteKind,
    /// Who answers.
    pub backend: BackendId,
    /// In order; each sees the request's head, and in reverse the answer's.
    pub filters: Box<[Box<dyn Filter>]>,
}

/// How a route picks paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The prefix and everything below it, by whole segments.
    Prefix(String),
    /// This path and no other.
    Exact(String),
}

impl PathMatch {
    /// Whether `path` (without query) is meant.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => match path.strip_prefix(prefix.trim_end_matches('/')) {
                Some(rest) => rest.is_empty() || rest.starts_with('/'),
                None => false,
            },
        }
    }
}

/// What a route carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Calls, in any dialect that this port speaks.
    Rpc,
    /// Plain HTTP, passed as it is.
    Plain,
}

/// Index of a backend in its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub usize);

/// A named set of servers.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Its name in logs, and what the pool knows it by across snapshots.
    pub name: Arc<str>,
    /// Who is behind it.
    pub target: Target,
    /// How long connecting may take, first SETTINGS included, for one address.
    pub connect_timeout: Duration,
    /// How many connections one core keeps to one endpoint at most.
    pub connections_max: usize,
    /// How many calls may wait for a stream on one core. Over it: UNAVAILABLE, `pending_overflow`.
    pub pending_max: usize,
}

/// Who is behind a backend.
#[derive(Clone, Debug)]
pub enum Target {
    /// Servers over HTTP/2 in plaintext, by prior knowledge.
    Endpoints(Vec<Endpoint>),
    /// A function in this process.
    Local(Arc<dyn Callee>),
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As it was written: `host:port`. Also the `:authority` of calls that bring none.
    pub name: Arc<str>,
    /// What the name means today, in the order in which to try. Empty: it could not be resolved.
    pub addresses: Vec<SocketAddr>,
}

/// A snapshot on the core that obeys it. It crosses threads once, as an `Arc`; a call clones the `Rc`, since counting one
/// `Arc` from many cores would have them fight over a cache line.
#[derive(Clone, Debug)]
#[expect(
    clippy::redundant_allocation,
    reason = "the outer count is this core's, the inner one everybody's"
)]
pub struct Rules(Rc<Arc<Snapshot>>);

impl Rules {
    /// What was adopted.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self(Rc::new(snapshot))
    }
}

impl Deref for Rules {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

impl Snapshot {
    /// The first route that takes this request, with its index.
    pub fn route(&self, head: &RequestHead) -> Option<(usize, &Route)> {
        let path = head.path.path();
        self.routes
            .iter()
            .enumerate()
            .find(|(_, route)| route.path.matches(path))
    }

    /// The backend of that id. Ids come from this snapshot's own routes.
    pub fn backend(&self, id: BackendId) -> Option<&Backend> {
        self.backends.get(id.0)
    }
}
