//! The messages of `demo.v1`, as in `proto/demo.proto`; a test holds the two together.

/// The full name of the service that the demo answers.
pub const SERVICE: &str = "demo.v1.Echo";

/// What `Say` is asked.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SayRequest {
    /// What to say.
    #[prost(string, tag = "1")]
    pub text: String,
}

/// What `Say` answers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SayReply {
    /// What was said.
    #[prost(string, tag = "1")]
    pub text: String,
}

/// What `Stream` is asked.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StreamRequest {
    /// What to say.
    #[prost(string, tag = "1")]
    pub text: String,
    /// How many times.
    #[prost(uint32, tag = "2")]
    pub count: u32,
    /// Time between two messages.
    #[prost(uint32, tag = "3")]
    pub interval_ms: u32,
}

/// One message of what `Stream` answers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StreamReply {
    /// What was said.
    #[prost(string, tag = "1")]
    pub text: String,
    /// Which message of the stream this is, from 1.
    #[prost(uint32, tag = "2")]
    pub number: u32,
}

/// What `Fail` is asked.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FailRequest {
    /// The status to end with, 1 to 16.
    #[prost(uint32, tag = "1")]
    pub code: u32,
    /// The status' message.
    #[prost(string, tag = "2")]
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTO: &str = include_str!("../../../proto/demo.proto");

    /// `(type, name, number)` of the fields of one message of the `.proto` file.
    fn declared(message: &str) -> Vec<(String, String, u32)> {
        let (_, after) = PROTO
            .split_once(&format!("message {message} {{"))
            .expect("the message is declared");
        let (body, _) = after.split_once('}').expect("the message is closed");
        body.lines()
            .map(str::trim)
            .filter(|line| line.ends_with(';'))
            .map(|line| {
                let words: Vec<&str> = line.trim_end_matches(';').split_whitespace().collect();
                let &[kind, name, "=", number] = words.as_slice() else {
                    panic!("not a plain field: {line}");
                };
                (kind.into(), name.into(), number.parse().expect("a number"))
            })
            .collect()
    }

    /// The same as the struct writes it: each sample has one field set, `"x"` or 1.
    fn written<M: prost::Message>(samples: &[(&str, M)]) -> Vec<(String, String, u32)> {
        samples
            .iter()
            .map(|(name, sample)| {
                let bytes = sample.encode_to_vec();
                let kind = match bytes[1..] {
                    [1, b'x'] if bytes[0] & 7 == 2 => "string",
                    [1] if bytes[0] & 7 == 0 => "uint32",
                    _ => panic!("{name}: not one field: {bytes:?}"),
                };
                (kind.into(), (*name).into(), u32::from(bytes[0] >> 3))
            })
            .collect()
    }

    #[test]
    fn the_structs_and_the_proto_file_declare_the_same_fields() {
        let x = || "x".to_owned();
        assert_eq!(
            declared("SayRequest"),
            written(&[("text", SayRequest { text: x() })])
        );
        assert_eq!(
            declared("SayReply"),
            written(&[("text", SayReply { text: x() })])
        );
        let none = StreamRequest::default();
        assert_eq!(
            declared("StreamRequest"),
            written(&[
                (
                    "text",
                    StreamRequest {
                        text: x(),
                        ..none.clone()
                    }
                ),
                (
                    "count",
                    StreamRequest {
                        count: 1,
                        ..none.clone()
                    }
                ),
                (
                    "interval_ms",
                    StreamRequest {
                        interval_ms: 1,
                        ..none
                    }
                ),
            ])
        );
        let none = StreamReply::default();
        assert_eq!(
            declared("StreamReply"),
            written(&[
                (
                    "text",
                    StreamReply {
                        text: x(),
                        ..none.clone()
                    }
                ),
                ("number", StreamReply { number: 1, ..none }),
            ])
        );
        let none = FailRequest::default();
        assert_eq!(
            declared("FailRequest"),
            written(&[
                (
                    "code",
                    FailRequest {
                        code: 1,
                        ..none.clone()
                    }
                ),
                (
                    "message",
                    FailRequest {
                        message: x(),
                        ..none
                    }
                ),
            ])
        );
    }

    #[test]
    fn the_proto_file_declares_no_other_message() {
        assert_eq!(PROTO.matches("\nmessage ").count(), 5);
    }
}
