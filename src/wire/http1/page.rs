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
    use bytes::Bytes;
    use http::header::ORIGIN;

    use super::*;
    use crate::wire::http1::{HeadLimits, parse_request, scan};

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

    #[test]
    fn a_head_that_can_be_read_names_the_page_that_its_reader_finds() {
        let good = b"\r\nPOST /a.B/C HTTP/1.1\r\nhost: a\r\nOrigin: http://a:1\r\nx-a: b:c\r\n\r\n";
        let mut random = fastrand::Rng::with_seed(17);
        let limits = HeadLimits::default();
        let mut read = 0;
        for _ in 0..20_000 {
            let mut head = good.to_vec();
            for _ in 0..random.usize(0..3) {
                let at = random.usize(..head.len());
                match random.u8(0..4) {
                    0 => head[at] = random.u8(..),
                    1 => head.insert(at, *random.choice(b"\r\n: o").expect("some")),
                    2 => drop(head.remove(at)),
                    _ => {
                        let from = random.usize(..head.len());
                        let piece = head[from.min(at)..from.max(at)].to_vec();
                        head.splice(at..at, piece);
                    }
                }
            }
            let page = page_of(&head);
            let Ok(Some(length)) = scan(&head, 0, &limits) else {
                continue;
            };
            let whole = Bytes::copy_from_slice(&head[..length]);
            let Ok(request) = parse_request(whole, &limits) else {
                continue;
            };
            let mut origins = request.head.headers.get_all(ORIGIN).iter();
            let expected = match (origins.next(), origins.next()) {
                (Some(origin), None) => Some(origin.clone()),
                _ => None,
            };
            assert_eq!(page, expected, "{}", head.escape_ascii());
            read += usize::from(page.is_some());
        }
        assert!(read > 5_000, "{read}");
    }
}
