//! Every setting of the `h2` client, on purpose, with its reason. Several of the crate's defaults lose connections in
//! ordinary use.

use std::time::Duration;

use h2::client::Builder;

use crate::http2::SEND_BUFFER_BYTES;

/// What one stream may send before its reader has taken it, bytes. 64 KiB throttles bulk, 256 KiB costs too much memory when
/// hundreds of readers stall.
pub const STREAM_WINDOW_BYTES: u32 = 128 << 10;
/// What all streams of a connection may send together, bytes: as much as there is. A smaller one lets a few stalled readers
/// block every other call on the connection, since unread bytes stay charged to it.
pub const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// Streams on one connection, so that their windows together fit the connection's.
pub const STREAMS_MAX: usize = (CONNECTION_WINDOW_BYTES / STREAM_WINDOW_BYTES) as usize;
/// A head or trailer section, bytes as HPACK counts them. Our own limit on metadata is lower; this is where `h2` stops. Of
/// trailers beyond it `h2` drops what is too much and says nothing, so what is left must still be over our own limit (64 KiB
/// at most): the largest single field of a section that the gate lets pass has eight fifths of its bytes (RFC 7541, five bits
/// for a character), and 512 KiB less that is far over it.
pub const HEADER_LIST_BYTES_MAX: u32 = 512 << 10;
/// Streams that may be opened before the peer's SETTINGS say so. We wait for them, so it only bounds a peer that names none.
const INITIAL_STREAMS: usize = 100;
/// Reset streams that are remembered, so that late frames of them are ignored instead of counted as errors: a mass
/// cancellation with one late frame each would end the connection at the default of 50. 390 bytes each.
const RESET_STREAMS_MAX: usize = 8192;

/// A client builder with all of it. `reset_stream_duration`: how long a reset stream is remembered; the simulator says
/// "for ever", since that is the only clock in `h2`.
pub fn builder(reset_stream_duration: Duration) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_frame_size(16 << 10)
        .header_table_size(4 << 10)
        .initial_max_send_streams(INITIAL_STREAMS)
        .max_concurrent_streams(0)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(RESET_STREAMS_MAX)
        .reset_stream_duration(reset_stream_duration)
        // Late frames of forgotten streams cost their RST and nothing more: a backend that answers slowly to cancellations
        // is no attacker.
        .max_local_error_reset_streams(None)
        // Streams gather their DATA as it comes, so small frames do not pile up inside `h2`; but frames of cancelled
        // streams are charged to this budget and never given back.
        .data_frame_budget(usize::MAX);
    builder
}
