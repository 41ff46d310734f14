//! Rows W: gRPC-Web framing, both forms, both ways.
