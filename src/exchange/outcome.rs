//! How a call ended: the one table that turns every early end into a status, and says whether repeating would be safe.
//!
//! Everything that anyone will ever see of a failure (status, log line, metric, span) is a function of an [`Outcome`].
//! A proxy may only originate the codes that gRPC libraries originate (grpc/grpc `doc/statuscodes.md`), and a timeout is
//! DEADLINE_EXCEEDED, never UNAVAILABLE, which would invite a retry.

use std::borrow::Cow;

use http::StatusCode;

use crate::wire::{Code, Party, Reason, Reset, Status};

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the caller was told, or would have been told had it stayed.
    pub status: Status,
    /// Why, in one word of the closed vocabulary.
    pub reason: Reason,
    /// Who ended it.
    pub by: Party,
    /// Whether the same call may be made again without the backend seeing it twice.
    pub retry: Retry,
    /// The answer was cut inside a message, so that it cannot be taken for whole.
    pub aborted: bool,
}

/// Whether a call may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It provably never reached the backend's application.
    Safe,
    /// It may have.
    Unsafe,
}

/// The table of ends: which status an early end has, and whether repeating would be safe.
pub fn status_of(reason: Reason) -> (Code, Retry) {
    match reason {
        Reason::Ok | Reason::BackendStatus => (Code::OK, Retry::Unsafe),
        Reason::NoRoute => (Code::UNIMPLEMENTED, Retry::Safe),
        Reason::NoEndpoint
        | Reason::BackendConnectRefused
        | Reason::BackendConnectTimeout
        | Reason::BackendDns
        | Reason::BackendTls
        | Reason::PendingOverflow
        | Reason::Overloaded
        | Reason::BackendRefused
        // The connection turned out to speak something else before any call was sent on it.
        | Reason::BackendNotGrpc(0) => (Code::UNAVAILABLE, Retry::Safe),
        // Calls that were cut by the drain may have run.
        Reason::BackendClosed | Reason::BackendLost | Reason::Draining => {
            (Code::UNAVAILABLE, Retry::Unsafe)
        }
        Reason::BackendNotGrpc(http) => (Code::from_http(http), Retry::Unsafe),
        Reason::BackendReset(h2) => (Code::from_h2_reason(h2), Retry::Unsafe),
        Reason::BackendNoTrailers | Reason::BackendProtocol(_) => (Code::INTERNAL, Retry::Unsafe),
        Reason::ClientLeft => (Code::CANCELLED, Retry::Unsafe),
        Reason::ClientProtocol(_) => (Code::INTERNAL, Retry::Unsafe),
        Reason::MessageTooLarge(_) | Reason::MetadataTooLarge | Reason::MetadataTooLargeThere(_) => {
            (Code::RESOURCE_EXHAUSTED, Retry::Unsafe)
        }
        Reason::Deadline | Reason::ClientTooSlow => (Code::DEADLINE_EXCEEDED, Retry::Unsafe),
        Reason::Loop | Reason::Panic => (Code::INTERNAL, Retry::Unsafe),
    }
}

/// What a caller of plain HTTP is told where the status of the call would blame the proxy for what the caller did.
pub fn http_status_of(reason: Reason) -> Option<StatusCode> {
    match reason {
        Reason::ClientProtocol(_) => Some(StatusCode::BAD_REQUEST),
        Reason::ClientTooSlow => Some(StatusCode::REQUEST_TIMEOUT),
        Reason::MetadataTooLargeThere(_) => Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        _ => None,
    }
}

/// What the caller is told. Names of backends, no addresses: those stay inside.
pub fn message_of(reset: Reset, backend: &str) -> Cow<'static, str> {
    match reset.reason {
        Reason::Ok | Reason::BackendStatus => Cow::Borrowed(""),
        Reason::NoRoute => Cow::Borrowed("no route takes this method"),
        Reason::NoEndpoint => format!("backend \"{backend}\" has no endpoint").into(),
        Reason::BackendConnectRefused => {
            format!("backend \"{backend}\" is not reachable: nothing listens there").into()
        }
        Reason::BackendConnectTimeout => {
            format!("backend \"{backend}\" is not reachable: it does not answer").into()
        }
        Reason::BackendDns => {
            format!("backend \"{backend}\" is not reachable: its name has no address").into()
        }
        Reason::BackendTls => format!("backend \"{backend}\" wants TLS").into(),
        Reason::BackendNotGrpc(0) => format!("backend \"{backend}\" does not speak gRPC").into(),
        Reason::BackendNotGrpc(status) => {
            format!("backend \"{backend}\" answered HTTP {status} instead of gRPC").into()
        }
        Reason::BackendReset(code) => {
            let name = h2_name(code);
            format!("backend \"{backend}\" reset the stream ({name})").into()
        }
        Reason::BackendRefused => format!("backend \"{backend}\" refused the call").into(),
        Reason::BackendLost => {
            format!("the proxy lost its connection to backend \"{backend}\"").into()
        }
        Reason::BackendClosed => format!("backend \"{backend}\" closed the connection").into(),
        Reason::BackendNoTrailers => {
            format!("backend \"{backend}\" ended its answer without a status").into()
        }
        Reason::BackendProtocol(how) => {
            format!("backend \"{backend}\" broke the protocol: {how}").into()
        }
        Reason::PendingOverflow => format!(
            "backend \"{backend}\" is busy: too many calls wait for it, or this one has waited too long"
        )
        .into(),
        Reason::ClientLeft => Cow::Borrowed("the caller went away"),
        Reason::ClientProtocol(how) => format!("the request is broken: {how}").into(),
        Reason::ClientTooSlow => Cow::Borrowed("the caller is too slow"),
        Reason::MessageTooLarge(limit) => {
            let who = if reset.by == Party::Upstream {
                "answer"
            } else {
                "request"
            };
            format!("a message of the {who} is larger than limits.message_bytes ({limit} bytes)")
                .into()
        }
        Reason::MetadataTooLarge => Cow::Borrowed("metadata is larger than limits.header_bytes"),
        Reason::MetadataTooLargeThere(takes) => format!(
            "the request's metadata is larger than what backend \"{backend}\" takes ({takes} bytes)"
        )
        .into(),
        Reason::Deadline => Cow::Borrowed("the deadline of the call has passed"),
        Reason::Draining => Cow::Borrowed("the proxy is shutting down"),
        Reason::Overloaded => Cow::Borrowed("the proxy has too much to do"),
        Reason::Loop => Cow::Borrowed("the call has been through this proxy too often"),
        Reason::Panic => Cow::Borrowed("the proxy failed on this call"),
    }
}

/// RFC 9113 §7.
fn h2_name(code: u32) -> &'static str {
    match code {
        0 => "NO_ERROR",
        1 => "PROTOCOL_ERROR",
        2 => "INTERNAL_ERROR",
        3 => "FLOW_CONTROL_ERROR",
        4 => "SETTINGS_TIMEOUT",
        5 => "STREAM_CLOSED",
        6 => "FRAME_SIZE_ERROR",
        7 => "REFUSED_STREAM",
        8 => "CANCEL",
        9 => "COMPRESSION_ERROR",
        10 => "CONNECT_ERROR",
        11 => "ENHANCE_YOUR_CALM",
        12 => "INADEQUATE_SECURITY",
        13 => "HTTP_1_1_REQUIRED",
        _ => "an unknown code",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reason, its code, whether the call may be made again, and what the caller is told.
    const ROWS: [(Reset, u32, Retry, &str); 32] = {
        use Reason as R;
        use Retry::{Safe, Unsafe};
        [
            (Reset::upstream(R::Ok), 0, Unsafe, ""),
            (Reset::upstream(R::BackendStatus), 0, Unsafe, ""),
            (
                Reset::proxy(R::NoRoute),
                12,
                Safe,
                "no route takes this method",
            ),
            (
                Reset::proxy(R::NoEndpoint),
                14,
                Safe,
                "backend \"b\" has no endpoint",
            ),
            (
                Reset::proxy(R::BackendConnectRefused),
                14,
                Safe,
                "backend \"b\" is not reachable: nothing listens there",
            ),
            (
                Reset::proxy(R::BackendConnectTimeout),
                14,
                Safe,
                "backend \"b\" is not reachable: it does not answer",
            ),
            (
                Reset::proxy(R::BackendDns),
                14,
                Safe,
                "backend \"b\" is not reachable: its name has no address",
            ),
            (
                Reset::proxy(R::BackendTls),
                14,
                Safe,
                "backend \"b\" wants TLS",
            ),
            (
                Reset::proxy(R::BackendNotGrpc(0)),
                14,
                Safe,
                "backend \"b\" does not speak gRPC",
            ),
            (
                Reset::upstream(R::BackendNotGrpc(403)),
                7,
                Unsafe,
                "backend \"b\" answered HTTP 403 instead of gRPC",
            ),
            (
                Reset::upstream(R::BackendNotGrpc(200)),
                2,
                Unsafe,
                "backend \"b\" answered HTTP 200 instead of gRPC",
            ),
            (
                Reset::upstream(R::BackendReset(8)),
                1,
                Unsafe,
                "backend \"b\" reset the stream (CANCEL)",
            ),
            (
                Reset::upstream(R::BackendReset(99)),
                13,
                Unsafe,
                "backend \"b\" reset the stream (an unknown code)",
            ),
            (
                Reset::upstream(R::BackendRefused),
                14,
                Safe,
                "backend \"b\" refused the call",
            ),
            (
                Reset::upstream(R::BackendClosed),
                14,
                Unsafe,
                "backend \"b\" closed the connection",
            ),
            (
                Reset::proxy(R::BackendLost),
                14,
                Unsafe,
                "the proxy lost its connection to backend \"b\"",
            ),
            (
                Reset::upstream(R::BackendNoTrailers),
                13,
                Unsafe,
                "backend \"b\" ended its answer without a status",
            ),
            (
                Reset::upstream(R::BackendProtocol("so")),
                13,
                Unsafe,
                "backend \"b\" broke the protocol: so",
            ),
            (
                Reset::proxy(R::PendingOverflow),
                14,
                Safe,
                "backend \"b\" is busy: too many calls wait for it, or this one has waited too long",
            ),
            (
                Reset::downstream(R::ClientLeft),
                1,
                Unsafe,
                "the caller went away",
            ),
            (
                Reset::downstream(R::ClientProtocol("so")),
                13,
                Unsafe,
                "the request is broken: so",
            ),
            (
                Reset::downstream(R::ClientTooSlow),
                4,
                Unsafe,
                "the caller is too slow",
            ),
            (
                Reset::downstream(R::MessageTooLarge(7)),
                8,
                Unsafe,
                "a message of the request is larger than limits.message_bytes (7 bytes)",
            ),
            (
                Reset::upstream(R::MessageTooLarge(7)),
                8,
                Unsafe,
                "a message of the answer is larger than limits.message_bytes (7 bytes)",
            ),
            (
                Reset::upstream(R::MetadataTooLarge),
                8,
                Unsafe,
                "metadata is larger than limits.header_bytes",
            ),
            (
                Reset::proxy(R::MetadataTooLargeThere(7)),
                8,
                Unsafe,
                "the request's metadata is larger than what backend \"b\" takes (7 bytes)",
            ),
            (
                Reset::proxy(R::Deadline),
                4,
                Unsafe,
                "the deadline of the call has passed",
            ),
            (
                Reset::proxy(R::Draining),
                14,
                Unsafe,
                "the proxy is shutting down",
            ),
            (
                Reset::proxy(R::Overloaded),
                14,
                Safe,
                "the proxy has too much to do",
            ),
            (
                Reset::proxy(R::Loop),
                13,
                Unsafe,
                "the call has been through this proxy too often",
            ),
            (
                Reset::proxy(R::Panic),
                13,
                Unsafe,
                "the proxy failed on this call",
            ),
            // The last of the 14 names.
            (
                Reset::upstream(R::BackendReset(13)),
                13,
                Unsafe,
                "backend \"b\" reset the stream (HTTP_1_1_REQUIRED)",
            ),
        ]
    };

    #[test]
    fn every_reason_has_its_row() {
        for (reset, code, retry, message) in ROWS {
            let row = (Code::new(code), retry);
            assert_eq!(status_of(reset.reason), row, "{reset:?}");
            assert_eq!(message_of(reset, "b"), message, "{reset:?}");
        }
        let words: std::collections::BTreeSet<&str> =
            ROWS.iter().map(|(reset, ..)| reset.reason.word()).collect();
        assert_eq!(words.len(), 26, "a reason without a row");
    }

    #[test]
    fn a_reset_is_told_by_its_name() {
        let names = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
            "an unknown code",
        ];
        for (code, name) in (0..).zip(names) {
            assert_eq!(h2_name(code), name, "{code}");
        }
    }

    #[test]
    fn a_caller_of_plain_http_is_told_what_was_its_own_doing() {
        for (reset, ..) in ROWS {
            let status = match reset.reason {
                Reason::ClientProtocol(_) => Some(StatusCode::BAD_REQUEST),
                Reason::ClientTooSlow => Some(StatusCode::REQUEST_TIMEOUT),
                Reason::MetadataTooLargeThere(_) => {
                    Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
                }
                _ => None,
            };
            assert_eq!(http_status_of(reset.reason), status, "{reset:?}");
        }
    }

    #[test]
    fn a_proxy_originates_no_code_that_only_an_application_may() {
        let applications = [
            Code::INVALID_ARGUMENT,
            Code::NOT_FOUND,
            Code::ALREADY_EXISTS,
            Code::FAILED_PRECONDITION,
            Code::ABORTED,
            Code::OUT_OF_RANGE,
            Code::DATA_LOSS,
        ];
        let reasons = (0..=999)
            .map(Reason::BackendNotGrpc)
            .chain((0..=99).map(Reason::BackendReset))
            .chain(ROWS.map(|(reset, ..)| reset.reason));
        for reason in reasons {
            let (code, _) = status_of(reason);
            assert!(!applications.contains(&code), "{reason:?}");
        }
    }

    #[test]
    fn what_may_have_run_is_never_safe_to_repeat() {
        for reset in ROWS.map(|(reset, ..)| reset) {
            let (code, retry) = status_of(reset.reason);
            if retry == Retry::Safe {
                let told = code == Code::UNAVAILABLE || reset.reason == Reason::NoRoute;
                assert!(told, "{reset:?}: a caller repeats only what is UNAVAILABLE");
            }
        }
        for code in 0..20 {
            assert_eq!(status_of(Reason::BackendReset(code)).1, Retry::Unsafe);
        }
    }
}
