//! Answers through their codec: the same at every split and in both forms, ended by exactly one trailer frame, and nothing in
//! front of it that the backend did not send. A native caller is told the same, in trailers.

use std::io::{Read as _, Write as _};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use wharf::rpc::{Closing, Dialect, Ending, Form, ResponseCodec};
use wharf::wire::base64::Decoder;
use wharf::wire::envelope::prefix;
use wharf::wire::metadata::is_hop_by_hop;
use wharf::wire::{Code, Part, Reason, Reset, ResponseHead, Status};

use super::shared::{envelopes, fields, percent_decoded, trailers, ways};

/// Reads `input` as a line of options and a backend's script of lines.
///
/// Options are letters and digits: `g` and `d`, the caller reads gzip and deflate; `s`, messages may have 24 bytes and no
/// more; digits are the sizes of pieces. A line of the script is a letter and what belongs to it: `H` a head with its HTTP
/// status and `|` before each field, `h` the same as the end of the stream; `D` bytes; `M` a message; `C`, `G`, `Z`, one that
/// says it is packed, and is not, or with gzip, or with deflate; `B` a gzip of so many zeros; `T` trailers, `|` before each;
/// `E` the end.
pub fn check(input: &[u8]) {
    let mut lines = input.split(|&byte| byte == b'\n');
    let options = Options::new(lines.next().unwrap_or_default());
    let script: Vec<_> = lines.take(64).filter_map(said).collect();

    let expected = run(Form::Binary, &options, &script);
    check_answer(&options, &script, &expected);
    for form in [Form::Binary, Form::Text] {
        for script in ways_of(&script, &options.sizes) {
            let mut seen = run(form, &options, &script);
            if form == Form::Text && seen.closing == Some(Closing::Cut) {
                // Inside a message, up to two bytes wait for a third: they cannot be written.
                let left = expected.body.strip_prefix(&*seen.body);
                let left = left.expect("the same up to the cut");
                assert!(left.len() < 3);
                seen.body.extend_from_slice(left);
            }
            assert_eq!(seen, expected, "{form:?}, {} parts", script.len());
        }
    }

    let native = run_native(&options, &script);
    check_native(&script, &native);
    for script in ways_of(&script, &options.sizes) {
        let seen = run_native(&options, &script);
        assert_eq!(seen, native, "native, {} parts", script.len());
    }
    if names_usual_codings(&script) {
        // Of such a caller of gRPC-Web nothing has to be unpacked, either.
        let mut options = options;
        options.request = HeaderMap::new();
        let accepted = HeaderValue::from_static("gzip,deflate");
        options.request.append("grpc-accept-encoding", accepted);
        let model = run(Form::Binary, &options, &script);
        check_alike(&native, &model);
    }
}

struct Options {
    limit: u32,
    /// The request's fields.
    request: HeaderMap,
    sizes: Vec<u8>,
}

impl Options {
    fn new(line: &[u8]) -> Self {
        let mut request = HeaderMap::new();
        for (letter, coding) in [(b'g', "gzip"), (b'd', "x, deflate")] {
            if line.contains(&letter) {
                let coding = HeaderValue::from_static(coding);
                request.append("grpc-accept-encoding", coding);
            }
        }
        Self {
            limit: if line.contains(&b's') { 24 } else { 4096 },
            request,
            sizes: line.iter().copied().filter(u8::is_ascii_digit).collect(),
        }
    }
}

/// One part of a script.
#[derive(Clone, Debug)]
enum Said {
    Head(Box<ResponseHead>),
    Data(Vec<u8>),
    End(Option<Box<HeaderMap>>),
}

fn said(line: &[u8]) -> Option<Said> {
    let (&letter, rest) = line.split_first()?;
    Some(match letter {
        b'H' | b'h' => {
            let status = rest.get(..3).unwrap_or_default();
            let status = StatusCode::from_bytes(status).unwrap_or(StatusCode::OK);
            let mut head = ResponseHead::new(status);
            head.headers = fields(rest, b'|');
            head.end = letter == b'h';
            Said::Head(Box::new(head))
        }
        b'D' => Said::Data(rest.to_vec()),
        b'M' => message(0, rest),
        b'C' => message(1, rest),
        b'G' => message(1, &gzip(rest)),
        b'Z' => {
            let mut packer = ZlibEncoder::new(Vec::new(), Compression::fast());
            packer.write_all(rest).expect("memory takes all");
            message(1, &packer.finish().expect("memory takes all"))
        }
        b'B' => {
            let count = std::str::from_utf8(rest).ok()?.parse::<u16>().ok()?;
            message(1, &gzip(&vec![0; usize::from(count)]))
        }
        b'T' => Said::End(Some(Box::new(fields(rest, b'|')))),
        b'E' => Said::End(None),
        _ => return None,
    })
}

fn message(flags: u8, payload: &[u8]) -> Said {
    Said::Data([&prefix(flags, payload.len() as u32)[..], payload].concat())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(bytes).expect("memory takes all");
    packer.finish().expect("memory takes all")
}

/// The script with its content put together, and that cut in all the ways.
fn ways_of(script: &[Said], sizes: &[u8]) -> Vec<Vec<Said>> {
    let mut joined: Vec<Said> = Vec::new();
    for said in script {
        match (joined.last_mut(), said) {
            (Some(Said::Data(all)), Said::Data(more)) => all.extend_from_slice(more),
            _ => joined.push(said.clone()),
        }
    }
    (0..3)
        .map(|way| {
            let cut = |said: &Said| match said {
                Said::Data(data) if !data.is_empty() => ways(data, sizes)[way]
                    .iter()
                    .map(|piece| Said::Data(piece.to_vec()))
                    .collect(),
                other => vec![other.clone()],
            };
            joined.iter().flat_map(cut).collect()
        })
        .collect()
}

/// What came of a script, in words that do not depend on the form and the pieces.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    head: Option<HeaderMap>,
    /// Without text mode.
    body: Vec<u8>,
    ended: bool,
    /// It came in one go, with a length.
    whole: bool,
    ending: Option<Ending>,
    fault: Option<Reset>,
    closing: Option<Closing>,
    /// `None` after a fault: whether the last one counts depends on the pieces then.
    messages: Option<u64>,
    dropped_fields: u32,
}

/// What was handed on so far.
#[derive(Default)]
struct Taken {
    head: Option<Box<ResponseHead>>,
    raw: Vec<u8>,
    ended: bool,
}

impl Taken {
    fn take(&mut self, part: Part) {
        assert!(!self.ended, "nothing comes after the end");
        match part {
            Part::Head(head) => {
                assert!(self.head.is_none(), "one head");
                self.head = Some(head);
            }
            Part::Data(data) => {
                assert!(self.head.is_some(), "a head comes first");
                assert!(!data.is_empty(), "no empty data");
                self.raw.extend_from_slice(&data);
            }
            Part::End(fields) => {
                assert!(self.head.is_some(), "a head comes first");
                assert!(fields.is_none(), "gRPC-Web has no HTTP trailers");
                self.ended = true;
            }
        }
    }

    /// What a client can read of it now.
    fn binary(&self, form: Form) -> Vec<u8> {
        match form {
            Form::Binary => self.raw.clone(),
            Form::Text => {
                let mut bytes = BytesMut::new();
                let mut decoder = Decoder::new();
                decoder.decode(&self.raw, &mut bytes).expect("base64");
                decoder.finish().expect("whole groups of four");
                bytes.to_vec()
            }
        }
    }
}

/// What we say where the backend does not.
const OWN: &str = "100% our own";

fn run(form: Form, options: &Options, script: &[Said]) -> Seen {
    let dialect = Dialect::GrpcWeb {
        request: form,
        response: form,
    };
    let mut codec = ResponseCodec::new(dialect, &options.request.clone().into(), options.limit);
    let mut taken = Taken::default();
    let mut seen = Seen::default();
    let mut rest = script.iter();
    for said in rest.by_ref() {
        match codec.translate(part(said), &mut |part| taken.take(part)) {
            Ok(None) => assert!(!taken.ended, "an end is told"),
            Ok(Some(ending)) => {
                assert!(taken.ended, "what is told to be over has an end");
                seen.ending = Some(ending);
                break;
            }
            Err(fault) => {
                seen.fault = Some(fault);
                break;
            }
        }
        assert_eq!(codec.head_sent(), taken.head.is_some());
        if codec.at_boundary() {
            // What is whole can be read, in either form: a client waits for it.
            assert_eq!(taken.binary(form).len() as u64, codec.bytes());
        }
    }
    seen.messages = seen.fault.is_none().then(|| codec.messages());
    if let Some(fault) = seen.fault {
        let again = codec.translate(Part::End(None), &mut |_| panic!("a fault writes nothing"));
        assert_eq!(again, Err(fault), "a fault is sticky");
    }
    if seen.ending.is_none() {
        let status = Status::new(Code::ABORTED, OWN);
        let closing = codec.end(&status, &mut |part| taken.take(part));
        assert_eq!(closing == Closing::Ended, taken.ended);
        seen.closing = Some(closing);
    }
    // It is over, whatever is asked and whatever else comes.
    if seen.fault.is_none() {
        for said in rest {
            let late = codec.translate(part(said), &mut |_| panic!("late"));
            assert_eq!(late, Ok(None));
        }
    }
    let late = Status::new(Code::INTERNAL, "late");
    let closing = codec.end(&late, &mut |_| panic!("late"));
    assert_eq!(closing, Closing::Ended);

    seen.dropped_fields = codec.dropped_fields();
    seen.ended = taken.ended;
    seen.body = taken.binary(form);
    if let Some(mut head) = taken.head {
        check_head(form, &head, taken.raw.len());
        head.headers.remove(CONTENT_TYPE);
        seen.whole = head.headers.remove(CONTENT_LENGTH).is_some();
        seen.head = Some(head.headers);
    }
    seen
}

/// What a native caller gets.
#[derive(Debug, Default, PartialEq)]
struct Native {
    head: Option<HeaderMap>,
    /// The head was all of it: trailers-only.
    alone: bool,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    ended: bool,
    ending: Option<Ending>,
    fault: Option<Reset>,
    closing: Option<Closing>,
    /// `None` after a fault.
    messages: Option<u64>,
}

impl Native {
    fn take(&mut self, part: Part) {
        assert!(!self.ended, "nothing comes after the end");
        match part {
            Part::Head(head) => {
                assert!(self.head.is_none(), "one head");
                assert_eq!(head.status, StatusCode::OK);
                self.alone = head.end;
                self.head = Some(head.headers);
            }
            Part::Data(data) => {
                assert!(self.head.is_some() && !self.alone, "a head comes first");
                assert!(!data.is_empty(), "no empty data");
                self.body.extend_from_slice(&data);
            }
            Part::End(trailers) => {
                assert!(self.head.is_some(), "a head comes first");
                assert_eq!(trailers.is_none(), self.alone, "one section ends it");
                self.trailers = trailers.map(|trailers| *trailers);
                self.ended = true;
            }
        }
    }

    /// The section that ends the call.
    fn last(&self) -> &HeaderMap {
        let last = self.trailers.as_ref().or(self.head.as_ref());
        last.expect("it has ended")
    }
}

fn run_native(options: &Options, script: &[Said]) -> Native {
    let request = options.request.clone().into();
    let mut codec = ResponseCodec::new(Dialect::Grpc, &request, options.limit);
    let mut seen = Native::default();
    for said in script {
        match codec.translate(part(said), &mut |part| seen.take(part)) {
            Ok(ending) => seen.ending = ending,
            Err(fault) => seen.fault = Some(fault),
        }
        assert_eq!(seen.ending.is_some(), seen.ended, "an end is told");
        if seen.ending.is_some() || seen.fault.is_some() {
            break;
        }
        assert_eq!(codec.head_sent(), seen.head.is_some());
        assert_eq!(codec.bytes(), seen.body.len() as u64);
    }
    seen.messages = seen.fault.is_none().then(|| codec.messages());
    if let Some(fault) = seen.fault {
        let again = codec.translate(Part::End(None), &mut |_| panic!("a fault writes nothing"));
        assert_eq!(again, Err(fault), "a fault is sticky");
    }
    if seen.ending.is_none() {
        let status = Status::new(Code::ABORTED, OWN);
        let closing = codec.end(&status, &mut |part| seen.take(part));
        assert_eq!(closing == Closing::Ended, seen.ended);
        seen.closing = Some(closing);
    }
    let late = Status::new(Code::INTERNAL, "late");
    let closing = codec.end(&late, &mut |_| panic!("late"));
    assert_eq!(closing, Closing::Ended);
    seen
}

/// Holds what a native caller got against what was sent: the same bytes from the beginning on, and fields that came.
fn check_native(script: &[Said], seen: &Native) {
    let (mut content, mut sections) = (Vec::new(), Vec::new());
    for said in script {
        match said {
            Said::Head(head) => sections.push(&head.headers),
            Said::Data(data) => content.extend_from_slice(data),
            Said::End(fields) => sections.extend(fields.as_deref()),
        }
    }
    if !seen.alone {
        assert!(content.starts_with(&seen.body), "not what was sent");
    }
    let own = ["grpc-status", "grpc-message", "content-type"];
    for fields in seen.head.iter().chain(&seen.trailers) {
        for (name, value) in fields {
            assert!(!is_hop_by_hop(name), "{name}");
            let mut sent = sections.iter().flat_map(|fields| fields.get_all(name));
            assert!(
                own.contains(&name.as_str()) || sent.any(|sent| sent == value),
                "{name}: {value:?} was not sent"
            );
        }
    }
    if let Some(head) = &seen.head {
        let types: Vec<_> = head.get_all(CONTENT_TYPE).iter().collect();
        let [content_type] = types[..] else {
            panic!("one content type: {types:?}")
        };
        let essence = content_type.as_bytes().get(..16).unwrap_or_default();
        assert!(essence.eq_ignore_ascii_case(b"application/grpc"));
        for name in head.keys() {
            assert!(!name.as_str().starts_with("access-control-"), "{name}");
            let status = ["grpc-status", "grpc-message", "grpc-status-details-bin"];
            assert!(seen.alone || !status.contains(&name.as_str()), "{name}");
        }
    }
    let read = envelopes(&seen.body);
    if !seen.ended {
        assert_eq!(seen.closing, Some(Closing::Cut));
        assert!(read.begun.is_some() && read.rest.is_empty());
        return;
    }
    assert!(read.begun.is_none() && read.rest.is_empty());
    let only = |name: &str| {
        let values: Vec<_> = seen.last().get_all(name).iter().collect();
        assert!(values.len() <= 1, "{name} once: {values:?}");
        values.first().map(|value| value.as_bytes())
    };
    let code = only("grpc-status").expect("a status");
    let message = percent_decoded(only("grpc-message").unwrap_or_default());
    let (expected, words) = match &seen.ending {
        Some(ending) => (ending.status.code, &*ending.status.message),
        None => (Code::ABORTED, OWN),
    };
    assert_eq!(code, expected.number().to_string().as_bytes());
    assert_eq!(message, words);
}

/// Whether messages of all answers in it may be compressed by the same rule for every caller: in a coding that ours can name.
fn names_usual_codings(script: &[Said]) -> bool {
    script.iter().all(|said| {
        let Said::Head(head) = said else { return true };
        let mut codings = head.headers.get_all("grpc-encoding").iter();
        let first = codings
            .next()
            .map_or(&b"identity"[..], HeaderValue::as_bytes);
        let usual = [&b"identity"[..], b"gzip", b"deflate"];
        usual.contains(&first) && codings.next().is_none()
    })
}

/// Two callers of one answer come to the same end with the same messages.
fn check_alike(native: &Native, web: &Seen) {
    assert_eq!(native.ending, web.ending);
    assert_eq!(native.fault, web.fault);
    assert_eq!(native.closing, web.closing);
    assert_eq!(native.messages, web.messages);
    let mut body = web.body.as_slice();
    if web.ended {
        let frame = envelopes(body)
            .whole
            .pop()
            .map(|(_, block)| block.len() + 5);
        body = &body[..body.len() - frame.expect("a frame")];
    }
    assert_eq!(native.body, body);
}

fn part(said: &Said) -> Part {
    match said {
        Said::Head(head) => Part::Head(head.clone()),
        Said::Data(data) => Part::Data(Bytes::copy_from_slice(data)),
        Said::End(fields) => Part::End(fields.clone()),
    }
}

/// The only head that all clients read rightly.
fn check_head(form: Form, head: &ResponseHead, body_bytes: usize) {
    assert_eq!(head.status, StatusCode::OK);
    assert!(!head.end);
    for name in head.headers.keys() {
        assert!(!is_hop_by_hop(name), "{name}");
        assert!(!name.as_str().starts_with("access-control-"), "{name}");
    }
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        assert!(!head.headers.contains_key(name), "{name} in the head");
    }
    if let Some(length) = head.headers.get(CONTENT_LENGTH) {
        assert_eq!(length, &body_bytes.to_string());
    }
    let wanted = match form {
        Form::Binary => "application/grpc-web",
        Form::Text => "application/grpc-web-text",
    };
    let content_type = head.headers[CONTENT_TYPE].to_str().expect("ASCII");
    let essence = content_type.split('+').next();
    assert_eq!(essence, Some(wanted), "{content_type}");
}

/// Holds the body against what was sent, read naively.
fn check_answer(options: &Options, script: &[Said], seen: &Seen) {
    let mut read = envelopes(&seen.body);
    if seen.ended {
        assert_eq!(read.begun, None, "a whole frame is last");
        assert!(read.rest.is_empty(), "nothing is behind the frame");
        let (flags, block) = read.whole.pop().expect("a frame");
        assert_eq!(flags, 0x80);
        check_frame(block, seen);
    } else {
        assert_eq!(seen.closing, Some(Closing::Cut));
        assert!(read.begun.is_some(), "cut between two messages");
        assert!(read.rest.is_empty(), "cut in a prefix");
    }
    if seen.whole {
        assert!(seen.ended && read.whole.is_empty());
    }
    if let Some(messages) = seen.messages.filter(|_| seen.ended) {
        assert_eq!(messages, read.whole.len() as u64);
    }

    // What passed is what was sent, in order, and unpacked only for one who could not have done that.
    let sent: Vec<u8> = script
        .iter()
        .flat_map(|said| match said {
            Said::Data(data) => data.as_slice(),
            _ => &[],
        })
        .copied()
        .collect();
    let sent = envelopes(&sent);
    assert!(read.whole.len() <= sent.whole.len());
    for ((flags, payload), (sent_flags, sent_payload)) in read.whole.iter().zip(&sent.whole) {
        assert!(*flags <= 1 && flags <= sent_flags);
        assert!(payload.len() <= options.limit as usize);
        if flags == sent_flags {
            assert_eq!(payload, sent_payload);
        } else {
            assert!(
                unpacked(sent_payload, options.limit)
                    .iter()
                    .any(|plain| plain == payload)
            );
        }
        if *flags == 1 {
            assert!(
                !options.request.is_empty(),
                "packed for one who cannot unpack"
            );
        }
    }
    if let Some((flags, length, begun)) = read.begun {
        let next = sent.whole.get(read.whole.len());
        let next = next.map(|(flags, payload)| (*flags, payload.len() as u32, *payload));
        let (sent_flags, sent_length, payload) = next.or(sent.begun).expect("it was sent");
        assert_eq!((flags, length), (sent_flags, sent_length));
        assert!(payload.starts_with(begun));
    }
}

fn check_frame(block: &[u8], seen: &Seen) {
    let lines = trailers(block);
    let value = |wanted: &str| {
        let line = lines.iter().find(|(name, _)| *name == wanted);
        line.map(|(_, value)| *value)
    };
    let code = value("grpc-status").expect("a status");
    let message = percent_decoded(value("grpc-message").unwrap_or_default().as_bytes());
    match &seen.ending {
        Some(ending) => {
            assert_eq!(code, ending.status.code.number().to_string());
            assert_eq!(message, ending.status.message);
            assert_eq!(
                ending.status.code == Code::OK,
                ending.reason == Reason::Ok,
                "{ending:?}"
            );
        }
        None => {
            assert_eq!(code, Code::ABORTED.number().to_string());
            assert_eq!(message, OWN);
            assert_eq!(lines.len(), 2);
        }
    }
}

/// What a message stands for, by either coding.
fn unpacked(packed: &[u8], limit: u32) -> Vec<Vec<u8>> {
    let limit = u64::from(limit) + 1;
    let mut gzip = Vec::new();
    let mut zlib = Vec::new();
    let gzip_fits = MultiGzDecoder::new(packed)
        .take(limit)
        .read_to_end(&mut gzip);
    let zlib_fits = ZlibDecoder::new(packed).take(limit).read_to_end(&mut zlib);
    let mut plain = Vec::new();
    plain.extend(gzip_fits.is_ok().then_some(gzip));
    plain.extend(zlib_fits.is_ok().then_some(zlib));
    if packed.is_empty() {
        plain.push(Vec::new());
    }
    plain
}
