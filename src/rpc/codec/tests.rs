//! Tests of both codecs: tables of what callers and backends send, each at every split point.
