//! The page of `wharf demo`: one file, nothing loaded from elsewhere, with a content security policy that says so (W3C,
//! Content Security Policy Level 3).
//!
//! Never calls the service itself; that is the page's business.

use std::collections::VecDeque;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::policy::{Answer, Callee};
use crate::wire::{OutgoingHead, Part, Reset, ResponseHead};

/// The backend that answers `GET /` with the page.
#[derive(Clone, Copy, Debug, Default)]
pub struct Page;

impl Callee for Page {
    fn call(&self, head: &OutgoingHead) -> Box<dyn Answer> {
        let readable = head.method == Method::GET || head.method == Method::HEAD;
        let (status, fields, body): (_, &[(HeaderName, &'static str)], _) = match head.path.path() {
            "/" if readable => (StatusCode::OK, &PAGE_FIELDS, page(address(head))),
            "/" => (
                StatusCode::METHOD_NOT_ALLOWED,
                &[(CONTENT_TYPE, PLAIN), (ALLOW, "GET, HEAD")],
                "This is a page: ask with GET.\n".into(),
            ),
            _ => (
                StatusCode::NOT_FOUND,
                &[(CONTENT_TYPE, PLAIN)],
                "Nothing here. The demo page is at / and its service at /demo.v1.Echo/.\n".into(),
            ),
        };
        let mut headers: HeaderMap = fields
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect();
        headers.insert(CONTENT_LENGTH, body.len().into());

        let end = head.method == Method::HEAD;
        let mut parts = VecDeque::from([Part::Head(Box::new(ResponseHead {
            status,
            headers,
            end,
        }))]);
        if !end {
            parts.push_back(Part::Data(Bytes::from(body)));
        }
        parts.push_back(Part::End(None));
        Box::new(Prepared { parts })
    }
}

/// An answer that waits for nothing.
#[derive(Debug)]
struct Prepared {
    parts: VecDeque<Part>,
}

impl Answer for Prepared {
    fn handle_part(&mut self, _: Part) {}

    fn poll_part(&mut self, _: Instant) -> Poll<Result<Part, Reset>> {
        // The end is sticky.
        Poll::Ready(Ok(self.parts.pop_front().unwrap_or(Part::End(None))))
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";

const PAGE_FIELDS: [(HeaderName, &str); 5] = [
    (CONTENT_TYPE, "text/html; charset=utf-8"),
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CONTENT_SECURITY_POLICY, POLICY),
];

/// Only what stands in the page may run, and it may call nobody but us. A test compares the hashes with the page.
const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-hRndN3TjM6fRpjASLYw/RdXSUkYnGu3GX8wm/dv0KVI=' 'sha256-A9UBmWGK+K6LGMOtQddOnPZs+hwa4IHMLUi1r4oym5s='; \
    style-src 'sha256-KgjwgN2XaBxeLmU05m73uVobGzzA7CT2CpzrJKUAMHg='; \
    img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const TEMPLATE: &str = include_str!("page.html");

/// The page, with the address that was asked for in its examples.
fn page(address: &str) -> String {
    TEMPLATE.replace("{{authority}}", address)
}

/// The address that the client knows us by, if it may be shown: it goes into HTML and into a shell line.
fn address(head: &OutgoingHead) -> &str {
    head.authority
        .as_ref()
        .map(http::uri::Authority::as_str)
        .filter(|given| {
            given
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte))
        })
        .unwrap_or("127.0.0.1:8080")
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn ask(method: Method, path: &str, authority: Option<&str>) -> (ResponseHead, String) {
        let head = OutgoingHead {
            method,
            path: path.parse().unwrap(),
            authority: authority.map(|text| text.parse().unwrap()),
            headers: HeaderMap::new(),
        };
        let mut answer = Page.call(&head);
        answer.handle_part(Part::End(None));
        let mut head = None;
        let mut body = Vec::new();
        loop {
            match answer.poll_part(Instant::now()) {
                Poll::Ready(Ok(Part::Head(it))) => assert!(head.replace(*it).is_none()),
                Poll::Ready(Ok(Part::Data(bytes))) => body.extend_from_slice(&bytes),
                Poll::Ready(Ok(Part::End(None))) => break,
                other => panic!("{other:?}"),
            }
        }
        (head.unwrap(), String::from_utf8(body).unwrap())
    }

    #[test]
    fn the_page_is_answered_with_its_exact_length() {
        let (head, body) = ask(Method::GET, "/", None);
        assert_eq!(head.status, StatusCode::OK);
        assert!(!head.end);
        assert_eq!(head.headers[CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(head.headers[CACHE_CONTROL], "no-store");
        assert_eq!(
            head.headers[CONTENT_LENGTH],
            body.len().to_string().as_str()
        );
        assert!(body.starts_with("<!doctype html>") && body.trim_end().ends_with("</html>"));
        // The flag shuts out who was let in before.
        assert!(body.contains("name others in their place with <code>--allow-origin"));
    }

    #[test]
    fn a_head_request_gets_the_same_fields_and_no_content() {
        let (with, _) = ask(Method::GET, "/?from=mail", None);
        let (without, body) = ask(Method::HEAD, "/", None);
        assert_eq!(with.headers, without.headers);
        assert!(without.end && body.is_empty());
    }

    #[test]
    fn everything_else_is_not_found_and_other_verbs_are_not_allowed() {
        let (head, body) = ask(Method::GET, "/favicon.ico", None);
        assert_eq!(head.status, StatusCode::NOT_FOUND);
        assert_eq!(
            head.headers[CONTENT_LENGTH],
            body.len().to_string().as_str()
        );
        let (head, _) = ask(Method::POST, "/", None);
        assert_eq!(head.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(head.headers[ALLOW], "GET, HEAD");
    }

    #[test]
    fn the_examples_name_the_address_that_was_asked_for() {
        for (given, shown) in [
            (
                Some("localhost:9000"),
                "http://localhost:9000/demo.v1.Echo/Say",
            ),
            (Some("[::1]:8080"), "http://[::1]:8080/demo.v1.Echo/Say"),
            (None, "http://127.0.0.1:8080/demo.v1.Echo/Say"),
        ] {
            let (_, body) = ask(Method::GET, "/", given);
            assert!(body.contains(shown), "{given:?}");
            assert!(!body.contains("{{"));
        }
    }

    #[test]
    fn an_address_that_could_be_html_or_shell_is_not_shown() {
        for given in ["a&lt;b", "$(reboot)", "a'b", "me:secret@host"] {
            let (_, body) = ask(Method::GET, "/", Some(given));
            assert!(!body.contains(given), "{given}");
        }
    }

    #[test]
    fn the_policy_names_the_hash_of_every_script_and_style_of_the_page() {
        let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
        let hashes = |open: &str, close: &str| -> Vec<String> {
            TEMPLATE
                .split(open)
                .skip(1)
                .map(|rest| {
                    let (_, rest) = rest.split_once('>').unwrap();
                    hash(rest.split_once(close).unwrap().0)
                })
                .collect()
        };
        let scripts = hashes("\n<script", "</script>").join(" ");
        let styles = hashes("\n<style", "</style>").join(" ");
        let want = format!("script-src {scripts}; style-src {styles};");
        assert!(POLICY.contains(&want), "write into POLICY:\n{want}");
    }

    #[test]
    fn the_page_loads_nothing_from_anywhere() {
        for tag in [
            "<link rel=\"stylesheet",
            "<img",
            "<iframe",
            " src=",
            "@import",
            "url(",
        ] {
            assert!(!TEMPLATE.contains(tag), "{tag}");
        }
    }

    #[test]
    fn the_page_counts_its_lines_rightly() {
        let (_, client) = TEMPLATE.split_once("<script id=\"client\">\n").unwrap();
        let (client, _) = client.split_once("</script>").unwrap();
        let lines = client.lines().count();
        assert!((115..125).contains(&lines), "{lines}");
        assert!(TEMPLATE.contains("about 120 lines of plain JavaScript"));
    }

    #[test]
    fn an_example_address_in_a_script_would_break_its_hash() {
        let (_, scripts) = TEMPLATE.split_once("\n<script").unwrap();
        assert!(!scripts.contains("{{authority}}"));
    }
}
