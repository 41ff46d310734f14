//! Metadata: what has crossed once crosses again unchanged, and nothing that must stay behind crosses.

use http::{HeaderName, Version};
use wharf::wire::metadata::{
    append_via, forward_request, forward_response, forward_trailers, is_hop_by_hop, size, via_hops,
};

use super::shared::fields;

/// Reads `input` as lines of `name:value`; what is none is skipped.
pub fn check(input: &[u8]) {
    let fields = fields(input, b'\n');

    let forwarded = forward_request(&fields.clone().into());
    for name in forwarded.keys() {
        assert!(!is_hop_by_hop(name), "{name}");
        for kept in [
            "host",
            "content-length",
            "content-type",
            "grpc-status",
            "grpc-message",
        ] {
            assert_ne!(name, kept);
        }
        assert!(fields.contains_key(name), "{name} was not there");
    }
    assert!(forwarded.get_all("cookie").iter().count() <= 1);
    for value in fields.get_all("connection") {
        for option in value.as_bytes().split(|&byte| byte == b',') {
            if let Ok(name) = HeaderName::from_bytes(option.trim_ascii()) {
                assert!(!forwarded.contains_key(&name), "{name} was nominated");
            }
        }
    }
    assert_eq!(forward_request(&forwarded.clone().into()), forwarded);

    let hops = via_hops(&forwarded.clone().into());
    let mut next = forwarded;
    let weight = size(&next);
    append_via(&mut next, Version::HTTP_11);
    assert_eq!(via_hops(&next.clone().into()), hops + 1);
    assert!(size(&next) > weight);

    let answered = forward_response(fields.clone());
    assert!(size(&answered) <= size(&fields));
    assert_eq!(forward_response(answered.clone()), answered);
    if let Ok(trailers) = forward_trailers(fields.clone()) {
        assert_eq!(trailers, fields);
    }
}
