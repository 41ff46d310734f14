//! Which page sent a head that is refused.
//!
//! Owns one question, asked only after the answer is certain to be a refusal: a browser shows a page an answer only where it
//! names the page's origin, so without it the refusal would be hidden. What is found here decides nothing but that field. A
//! head that could be read in two ways names nobody.
//!
//! Source: the Fetch standard, "CORS check".

use http::HeaderValue;

/// The one `origin` that the whole lines of a head name, as far as they are there. The request line is not looked at.
pub fn page_of(head: &[u8]) -> Option<HeaderValue> {
    let mut page = None;
    let mut rest = head;
    let mut first = true;
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let (line, after) = rest.split_at_checked(end)?;
        rest = after.get(2..)?;
        if line.is_empty() {
            if first {
                // The empty line that may stand before the request line.
                continue;
            }
            break;
        }
        if std::mem::take(&mut first) {
            continue;
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at_checked(colon)?;
        if name.eq_ignore_ascii_case(b"origin") {
            let value = HeaderValue::from_bytes(value.get(1..)?.trim_ascii()).ok()?;
            if page.replace(value).is_some() {
                return None;
            }
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(head: &str) -> Option<String> {
        let value = page_of(head.as_bytes())?;
        Some(value.to_str().expect("ASCII").to_owned())
    }

    #[test]
    fn the_one_origin_of_a_head_is_found_wherever_it_stands() {
        let found = Some("http://a".to_owned());
        for head in [
            "POST / HTTP/1.1\r\norigin: http://a\r\n",
            "POST / HTTP/1.1\r\nORIGIN:http://a \t\r\nhost: b\r\n\r\n",
            "\r\nPOST / HTTP/1.1\r\nno colon\r\nOrigin: http://a\r\nx: half a li",
            "POST / HTTP/1.1\r\norigin: http://a\r\n\r\norigin: http://b\r\n",
        ] {
            assert_eq!(page(head), found, "{head:?}");
        }
    }

    #[test]
    fn nobody_is_named_by_half_a_line_by_two_lines_or_by_what_is_no_value() {
        for head in [
            "",
            "origin: http://a\r\n\r\n",
            "POST / HTTP/1.1\r\norigin: http://a",
            "POST / HTTP/1.1\r\norigin: http://a\r",
            "POST / HTTP/1.1\r\norigin: http://a\r\norigin: http://a\r\n",
            "POST / HTTP/1.1\r\norigin : http://a\r\n",
            "POST / HTTP/1.1\r\nx-origin: http://a\r\n",
            "POST / HTTP/1.1\r\norigin: http://a\nx: y\r\n",
            "POST / HTTP/1.1\r\norigin: http://a\0\r\n",
            "POST / HTTP/1.1\r\n\r\norigin: http://a\r\n",
        ] {
            assert_eq!(page(head), None, "{head:?}");
        }
    }
}
