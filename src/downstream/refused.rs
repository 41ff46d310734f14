//! What is no request, in whatever version of HTTP it came, and what an answer may hold.

use http::StatusCode;

use crate::wire::RequestHead;
use crate::wire::http1::HeadFault;

/// Bytes that are no request.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub fault: HeadFault,
    /// What can be told of them all the same, if anything can.
    pub head: Option<Box<RequestHead>>,
}

/// A head that did not come whole in time.
pub(super) const TOO_SLOW: HeadFault = HeadFault {
    status: 408,
    detail: "the head of the request did not come whole in time",
};

/// RFC 9110 §6.4.1.
pub(super) fn forbids_content(status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}
