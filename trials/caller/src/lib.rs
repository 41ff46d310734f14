//! gRPC-Web over HTTP/1.1 as a careful client speaks it.
