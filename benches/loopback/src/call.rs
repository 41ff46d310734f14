//! A call as clients and servers here agree on it: the bytes of a message, the request that carries it, and the answer that a
//! floor gives without looking. Owns these bytes and nothing else; there is no socket here.

/// The path that all calls go to, unless another is asked for.
pub(crate) const PATH: &str = "/bench.Echo/Call";

/// A message's payload: not constant and not compressible to nothing, and the same in every program.
pub(crate) fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|at| (at.wrapping_mul(167) ^ (at >> 8)) as u8)
        .collect()
}

/// An envelope: gRPC's five-byte prefix and the payload.
pub(crate) fn envelope(payload: &[u8]) -> Vec<u8> {
    let mut envelope = Vec::with_capacity(5 + payload.len());
    envelope.push(0);
    envelope.extend_from_slice(
        &u32::try_from(payload.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    envelope.extend_from_slice(payload);
    envelope
}

/// What a browser's gRPC-Web client sends: nine fields, with the length known. `host` is the address that it is sent to.
pub(crate) fn request(host: &str, path: &str, payload: &[u8], text: bool) -> Vec<u8> {
    let mut body = envelope(payload);
    let kind = if text {
        body = base64(&body);
        "application/grpc-web-text"
    } else {
        "application/grpc-web+proto"
    };
    let mut request = format!(
        "POST {path} HTTP/1.1\r\n\
         host: {host}\r\n\
         content-type: {kind}\r\n\
         content-length: {length}\r\n\
         accept: {kind}\r\n\
         origin: https://shop.example.com\r\n\
         user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0\r\n\
         x-user-agent: grpc-web-javascript/0.1\r\n\
         x-grpc-web: 1\r\n\
         authorization: Bearer 6f1c1b5e0d8f4b7e9a3d2c4b5a69788796a5b4c3\r\n\
         \r\n",
        length = body.len(),
    )
    .into_bytes();
    request.extend_from_slice(&body);
    request
}

/// What the same client sends over HTTP/2: the same fields, `host` under its other name. `length` is the body's.
pub(crate) fn web_fields(host: &str, path: &str, length: usize) -> Vec<(String, String)> {
    let kind = "application/grpc-web+proto";
    let length = length.to_string();
    fields(
        host,
        path,
        &[
            ("content-type", kind),
            ("content-length", &length),
            ("accept", kind),
            ("origin", "https://shop.example.com"),
            (
                "user-agent",
                "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
            ),
            ("x-user-agent", "grpc-web-javascript/0.1"),
            ("x-grpc-web", "1"),
            (
                "authorization",
                "Bearer 6f1c1b5e0d8f4b7e9a3d2c4b5a69788796a5b4c3",
            ),
        ],
    )
}

/// What a gRPC client sends.
pub(crate) fn native_fields(host: &str, path: &str) -> Vec<(String, String)> {
    fields(
        host,
        path,
        &[
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            (
                "user-agent",
                "grpc-c++/1.76.0 grpc-c/51.0.0 (linux; chttp2)",
            ),
            ("grpc-accept-encoding", "identity, deflate, gzip"),
        ],
    )
}

fn fields(host: &str, path: &str, own: &[(&str, &str)]) -> Vec<(String, String)> {
    let pseudo = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", host),
    ];
    let all = pseudo.iter().chain(own);
    all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// The answer of a floor: as many bytes as a real proxy's, with the message in it, so that who checks answers is content.
/// `None` where `length` is too short for that; without one it is the answer that wharf gives.
pub(crate) fn answer(payload: &[u8], length: Option<usize>) -> Option<Vec<u8>> {
    let trailer = b"grpc-status:0\r\n";
    let mut body = envelope(payload);
    body.push(0x80);
    body.extend_from_slice(&(trailer.len() as u32).to_be_bytes());
    body.extend_from_slice(trailer);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc-web\r\nvary: Origin\r\ntransfer-encoding: chunked\r\n";
    let size = format!("\r\n{:x}\r\n", body.len());
    let end = b"\r\n0\r\n\r\n";
    let mut answer = head.as_bytes().to_vec();
    if let Some(length) = length {
        // A field of the missing length. The shortest one has four bytes besides its value: "x:" and the line's end.
        let missing = length.checked_sub(head.len() + size.len() + body.len() + end.len())?;
        if missing > 0 {
            answer.extend_from_slice(b"x:");
            answer.resize(answer.len() + missing.checked_sub(4)?, b'x');
            answer.extend_from_slice(b"\r\n");
        }
    }
    answer.extend_from_slice(size.as_bytes());
    answer.extend_from_slice(&body);
    answer.extend_from_slice(end);
    Some(answer)
}

/// Base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            text.push(if place <= three.len() {
                ALPHABET[(bits >> (18 - 6 * place) & 63) as usize]
            } else {
                b'='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_what_everybody_calls_so() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), text.as_bytes(), "{plain}");
        }
    }

    #[test]
    fn an_answer_is_as_long_as_it_was_asked_for() {
        let shortest = answer(&payload(16), None).unwrap().len();
        for length in [shortest, shortest + 4, shortest + 100] {
            assert_eq!(answer(&payload(16), Some(length)).unwrap().len(), length);
        }
        for length in [0, shortest - 1, shortest + 3] {
            assert_eq!(answer(&payload(16), Some(length)), None);
        }
    }

    #[test]
    fn a_request_has_nine_fields_and_the_length_of_its_body() {
        let request = request("127.0.0.1:1", PATH, &payload(16), false);
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Request::new(&mut fields);
        let head = parsed.parse(&request).unwrap().unwrap();
        assert_eq!(parsed.headers.len(), 9);
        let length = parsed
            .headers
            .iter()
            .find(|field| field.name == "content-length");
        assert_eq!(length.unwrap().value, b"21");
        assert_eq!(request.len() - head, 21);
    }
}
