//! Rows H2: what a client of HTTP/2 may do wrong. Each is done beside the open call of somebody else, which must come to its
//! good end.
//!
//! H2-01, all that `h2spec` knows, is run by `scripts/h2`; what hangs on the clock stands in `tests/simulation/http2_clock.rs`, and
//! how often a thing may be done, to the one, in `tests/simulation/http2_counts.rs`.

mod cuts;
mod frames;
mod heads;
mod leaving;
mod memory;
mod pages;
mod requests;
mod streams;

use wharf::telemetry::Record;
use wharf::wire::{Party, Reason};

use crate::backend::{Backend, Peer, Request, Seen};
use crate::caller::{Answer, Caller};
use crate::client::{Client, message, streamed, trailer_frame};
use crate::world::{Plan, World};

const OK: &str = "grpc-status:0\r\n";
/// How the calls end of a client that has broken HTTP/2.
const BROKEN: Reason = Reason::ClientProtocol("its connection had to be ended");

/// A proxy, its backend, and a call that is open while somebody else behaves badly.
struct Scene {
    world: World,
    peer: Peer,
    bystander: Client,
    stream: u32,
    // Held, so that the port stays taken.
    _backend: Backend,
}

impl Scene {
    fn new() -> Self {
        Self::with(Plan::default())
    }

    fn with(plan: Plan) -> Self {
        let backend = Backend::new();
        let world = World::with(plan, &[&backend]);
        let bystander = Client::calling(world.address, &message(b"beside"));
        let mut peer = backend.accept();
        let stream = peer.request().stream;
        Self {
            world,
            peer,
            bystander,
            stream,
            _backend: backend,
        }
    }

    fn caller(&self) -> Caller {
        Caller::new(self.world.address)
    }

    /// A call on that connection comes to its good end.
    fn assert_serves(&mut self, caller: &mut Caller) {
        let stream = caller.call(&message(b"hi"));
        let request = self.peer.request();
        assert_eq!(request.body, message(b"hi"));
        self.peer.answer(request.stream, &message(b"well"));
        assert_good(&caller.answer(stream), b"well");
        let record = self.world.record();
        assert_eq!((record.reason, record.refusal), (Reason::Ok, None));
    }

    /// The head of the next call, whose rest is still to come.
    fn begun(&mut self) -> Request {
        match self.peer.next() {
            Seen::Head {
                stream,
                fields,
                end: false,
            } => Request {
                stream,
                fields,
                body: Vec::new(),
            },
            other => panic!("instead of a head: {other:?}"),
        }
    }

    /// The call beside comes to its good end. What was recorded before that.
    fn end(mut self) -> Vec<Record> {
        self.peer.answer(self.stream, &message(b"well"));
        let expected = streamed(&[&message(b"well"), &trailer_frame(OK)]);
        assert_eq!(self.bystander.answer(), expected);
        let mut records = Vec::new();
        loop {
            let record = self.world.record();
            if record.request.bytes == 11 && record.reason == Reason::Ok {
                return records;
            }
            records.push(record);
        }
    }

    /// The call beside comes to its good end, the backend has seen nothing else, and one line tells of this.
    fn assert_told_once(mut self, words: &str) {
        self.peer.assert_quiet();
        assert_told(&self.end(), &[words]);
    }
}

/// These refusals were told, and nothing else.
fn assert_told(records: &[Record], words: &[&str]) {
    let told: Vec<_> = records
        .iter()
        .map(|own| (own.refusal, own.by, &*own.message))
        .collect();
    let expected: Vec<_> = words
        .iter()
        .map(|&words| (Some("bad_http"), Party::Downstream, words))
        .collect();
    assert_eq!(told, expected);
}

/// A whole good answer of one message.
fn assert_good(answer: &Answer, payload: &[u8]) {
    let body = [message(payload), trailer_frame(OK)].concat();
    assert_eq!(answer.told(), ("200", body.escape_ascii().to_string()));
    assert_eq!((answer.whole, answer.reset), (true, None));
}
