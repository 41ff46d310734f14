//! The words for what a caller speaks.

/// What a caller speaks on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// gRPC as its own clients speak it: over HTTP/2 alone.
    Grpc,
    /// gRPC-Web. The two directions choose their form independently: by `content-type` and by `accept`.
    GrpcWeb {
        /// How the request is written.
        request: Form,
        /// How the answer is to be written.
        response: Form,
    },
    /// HTTP that is no RPC: passed as it is.
    Plain,
}

/// How gRPC-Web's bytes stand in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// As they are.
    Binary,
    /// As base64 (`application/grpc-web-text`).
    Text,
}

impl Dialect {
    /// Whether what it carries is a call; plain HTTP is not.
    pub const fn is_rpc(self) -> bool {
        !matches!(self, Self::Plain)
    }

    /// Its name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::GrpcWeb {
                request: Form::Binary,
                response: Form::Binary,
            } => "grpc-web",
            Self::GrpcWeb { .. } => "grpc-web-text",
            Self::Plain => "http",
        }
    }
}
