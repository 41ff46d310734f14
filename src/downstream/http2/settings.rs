//! Every setting of the `h2` server, on purpose, with its reason. The crate's defaults are not fit for an open port: heads of
//! 16 MiB, and streams without a limit.

use std::time::Duration;

use h2::server::Builder;

use crate::http2::SEND_BUFFER_BYTES;

/// Streams that a client may have open at the same time. What a stream may hold is multiplied by it.
pub const STREAMS_MAX: u32 = 100;
/// What one stream of a request may send before its backend has taken it, bytes: HTTP/2's own first value, so that no client
/// learns of a larger one that it could be made to rue.
pub const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// What all streams of a connection may send together, bytes: all that they may each, so that no upload that stands still stops
/// another.
pub const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * STREAMS_MAX;
/// How many times over our own limit on heads `h2` stops. Between the two we answer, with a reason and to a page; beyond it `h2`
/// answers 431 by itself.
const HEADS_BEYOND: u32 = 4;
/// What is left of the memory of streams that were reset, as long as they are remembered: 390 bytes each. Late frames of others
/// count as errors.
const RESET_STREAMS_MAX: usize = 512;
/// How long they are remembered at least. A page whose upload was refused early may have seconds of it under way.
const RESET_STREAM_TIME_MIN: Duration = Duration::from_secs(30);
/// Streams that a client has reset before we have looked at them. The gate lets one head through at a time, so there is no more than one;
/// this only has to be more.
const UNSEEN_RESETS_MAX: usize = 100;
/// Streams that we have reset for what a client has done wrong, in the life of its connection. Each costs a few bytes to ask
/// for (CVE-2025-8671), and honest clients ask for none.
const ERRORS_MAX: usize = 100;
/// What small frames may cost before their stream has taken them. They are gathered as they come, but those of streams that were
/// reset are charged and never given back.
const DATA_FRAME_BUDGET: usize = 16 << 20;

/// A server builder with all of it. `head_bytes_max`: our own limit on heads, bytes. `reset_stream_duration`: how long a reset
/// stream is remembered, if that is longer than we want anyway; the simulator says "for ever", since that is the only clock in `h2`.
pub fn builder(head_bytes_max: usize, reset_stream_duration: Duration) -> Builder {
    let list = u32::try_from(head_bytes_max).unwrap_or(u32::MAX);
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(list.saturating_mul(HEADS_BEYOND))
        .max_frame_size(16 << 10)
        .header_table_size(4 << 10)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(RESET_STREAMS_MAX)
        .reset_stream_duration(reset_stream_duration.max(RESET_STREAM_TIME_MIN))
        .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX)
        .max_local_error_reset_streams(Some(ERRORS_MAX))
        .data_frame_budget(DATA_FRAME_BUDGET);
    builder
}
