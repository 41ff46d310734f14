//! Why a stream died early: the one error type between rooms.
//!
//! Small and `Copy`. What it means for the caller (status, message, retry) is decided in one place, `exchange::outcome`.

/// Who ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// The client.
    Downstream,
    /// The backend.
    Upstream,
    /// We.
    Proxy,
}

/// A stream's early death: who ended it, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reset {
    /// Who ended it.
    pub by: Party,
    /// Why.
    pub reason: Reason,
}

impl Reset {
    /// The client ended it.
    pub const fn downstream(reason: Reason) -> Self {
        Self {
            by: Party::Downstream,
            reason,
        }
    }

    /// The backend ended it.
    pub const fn upstream(reason: Reason) -> Self {
        Self {
            by: Party::Upstream,
            reason,
        }
    }

    /// We ended it.
    pub const fn proxy(reason: Reason) -> Self {
        Self {
            by: Party::Proxy,
            reason,
        }
    }
}

/// Why a call ended as it did. [`Reason::word`] is the closed vocabulary of logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing went wrong: the backend's own end, with status 0.
    Ok,
    /// Nothing went wrong on the way: the backend's own end, with another status.
    BackendStatus,
    /// No route matches.
    NoRoute,
    /// The backend has no endpoint.
    NoEndpoint,
    /// Nothing listens at any of the endpoint's addresses.
    BackendConnectRefused,
    /// Connecting, or the peer's first SETTINGS, took longer than the limit.
    BackendConnectTimeout,
    /// The name of the endpoint has no address.
    BackendDns,
    /// The endpoint answered plaintext with a TLS record: it wants TLS.
    BackendTls,
    /// What answered does not speak gRPC: HTTP/1.1, noise, another content type, or an HTTP status (given here; 0 for none).
    BackendNotGrpc(u16),
    /// RST_STREAM with this HTTP/2 error code (RFC 9113 §7).
    BackendReset(u32),
    /// REFUSED_STREAM, or a GOAWAY below our stream: provably not processed.
    BackendRefused,
    /// The connection was lost.
    BackendClosed,
    /// We gave the connection up, because of a panic in another call on it.
    BackendLost,
    /// The backend ended its stream without trailers after it had begun an answer.
    BackendNoTrailers,
    /// The backend broke gRPC or HTTP/2; the words say how.
    BackendProtocol(&'static str),
    /// The queue for the backend is full, or the call has waited in it for too long.
    PendingOverflow,
    /// The client went away.
    ClientLeft,
    /// The client broke the framing of its request; the words say how.
    ClientProtocol(&'static str),
    /// The client sends or reads too slowly.
    ClientTooSlow,
    /// A message is over the limit (given here, bytes).
    MessageTooLarge(u32),
    /// Metadata is over the limit.
    MetadataTooLarge,
    /// The request's metadata is over what the backend takes (given here, bytes), as far as it says so.
    MetadataTooLargeThere(u32),
    /// The call's deadline passed.
    Deadline,
    /// The proxy is shutting down.
    Draining,
    /// The proxy has too much to do.
    Overloaded,
    /// The proxy was routed to itself.
    Loop,
    /// A panic was contained.
    Panic,
}

impl Reason {
    /// The word for it in logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::BackendStatus => "backend_status",
            Self::NoRoute => "no_route",
            Self::NoEndpoint => "no_endpoint",
            Self::BackendConnectRefused => "backend_connect_refused",
            Self::BackendConnectTimeout => "backend_connect_timeout",
            Self::BackendDns => "backend_dns",
            Self::BackendTls => "backend_tls",
            Self::BackendNotGrpc(_) => "backend_not_grpc",
            Self::BackendReset(_) => "backend_reset",
            Self::BackendRefused => "backend_refused",
            Self::BackendClosed => "backend_closed",
            Self::BackendLost => "backend_lost",
            Self::BackendNoTrailers => "backend_no_trailers",
            Self::BackendProtocol(_) => "backend_protocol",
            Self::PendingOverflow => "pending_overflow",
            Self::ClientLeft => "client_left",
            Self::ClientProtocol(_) => "client_protocol",
            Self::ClientTooSlow => "client_too_slow",
            Self::MessageTooLarge(_) => "message_too_large",
            Self::MetadataTooLarge | Self::MetadataTooLargeThere(_) => "metadata_too_large",
            Self::Deadline => "deadline",
            Self::Draining => "draining",
            Self::Overloaded => "overloaded",
            Self::Loop => "loop",
            Self::Panic => "panic",
        }
    }

    /// What the word alone does not say, if there is more.
    pub const fn detail(self) -> Option<&'static str> {
        match self {
            Self::BackendProtocol(detail) | Self::ClientProtocol(detail) => Some(detail),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detail_is_what_the_decoder_said() {
        assert_eq!(Reason::ClientProtocol("so").detail(), Some("so"));
        assert_eq!(Reason::BackendProtocol("so").detail(), Some("so"));
        assert_eq!(Reason::Deadline.detail(), None);
    }
}
