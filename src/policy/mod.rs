//! What was decided, ready to execute: routes, filters, backends, limits. Immutable, `Send + Sync`, and always valid.
//!
//! `config` compiles it, `control` publishes it, the cores obey it. This room never opens a socket and never knows HTTP/2.

pub mod filter;
pub mod limits;
pub mod local;
pub mod network;
pub mod snapshot;

pub use filter::cors::{Cors, OriginFault, OriginPattern, OriginsFrom, Remedy};
pub use filter::forwarded::Forwarded;
pub use filter::{Filter, LocalAnswer, Peer, Verdict};
pub use limits::Limits;
pub use local::{Answer, Callee};
pub use network::{Network, NetworkFault};
pub use snapshot::{
    Backend, BackendId, Endpoint, Listener, PathMatch, Route, RouteKind, Rules, Snapshot, Target,
    Versions,
};
