//! What stands behind a floor: it counts a client's bytes until a whole request has come, and answers with as many bytes as a
//! gRPC-Web answer has. Nothing is parsed, so the length of a request has to be told, or what it is made of.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use crate::floor::{House, Inbox, Kind, Outbox};
use crate::socket::Readout;
use crate::{call, say};

/// What one read takes at most, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// What `loopback floor-echo` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The kind of the floor before it.
    #[arg(long)]
    kind: Kind,
    /// Where the floor comes in; port 0 takes a free one.
    #[arg(long)]
    listen: SocketAddr,
    /// Bytes of a call's message, as `loopback load` is told them.
    #[arg(long)]
    bytes: usize,
    /// Bytes of a whole request, head and body. Otherwise it is what `load` sends to a port of five digits on 127.0.0.1.
    #[arg(long)]
    request_bytes: Option<usize>,
    /// Bytes of a whole answer. Otherwise it is as long as wharf's to such a call.
    #[arg(long)]
    answer_bytes: Option<usize>,
    /// Seconds after which it ends by itself.
    #[arg(long = "for", default_value_t = 600)]
    seconds: u64,
}

/// Answers until it is told to stop or its time is over.
pub(crate) fn main(args: Args) -> ExitCode {
    say::exit(serve(&args))
}

fn serve(args: &Args) -> io::Result<()> {
    let payload = call::payload(args.bytes);
    let request_bytes = args
        .request_bytes
        .unwrap_or_else(|| call::request("127.0.0.1:12345", call::PATH, &payload, false).len());
    let answer = call::answer(&payload, args.answer_bytes).ok_or_else(|| {
        io::Error::other("--answer-bytes: fewer than an answer with such a message has")
    })?;
    let mut house = House::new(args.listen, args.seconds)?;
    house.announce()?;
    match args.kind {
        Kind::Mux => mux(&mut house, request_bytes, &answer),
        Kind::OneToOne => one_to_one(&mut house, request_bytes, &answer),
    }
}

/// How much of a request each client has sent.
#[derive(Debug, Default)]
struct Counts(Vec<usize>);

impl Counts {
    /// So many bytes more: how many requests are whole now.
    fn add(&mut self, key: usize, bytes: usize, request_bytes: usize) -> usize {
        if self.0.len() <= key {
            self.0.resize(key + 1, 0);
        }
        let sum = self.0[key] + bytes;
        self.0[key] = sum % request_bytes;
        sum / request_bytes
    }

    fn forget(&mut self, key: usize) {
        if let Some(count) = self.0.get_mut(key) {
            *count = 0;
        }
    }
}

/// A floor's connection, and the clients on it.
struct Floor {
    inbox: Inbox,
    outbox: Outbox,
    counts: Counts,
}

fn mux(house: &mut House, request_bytes: usize, answer: &[u8]) -> io::Result<()> {
    let mut floors: Vec<Option<Floor>> = Vec::new();
    let mut readable = Vec::new();
    loop {
        let woken = house.wait(&mut readable, false)?;
        if woken.ends {
            house.leave();
            return Ok(());
        }
        for key in std::mem::take(&mut readable) {
            let Some(floor) = floors.get_mut(key).and_then(Option::as_mut) else {
                continue;
            };
            let read = house.read_shared(key, &mut floor.inbox, &mut readable);
            if read.is_err() {
                floors[key] = None;
                house.clients.try_remove(key);
                continue;
            }
            let Floor {
                inbox,
                outbox,
                counts,
            } = floor;
            inbox.pieces(|client, bytes| {
                if bytes.is_empty() {
                    counts.forget(client);
                    outbox.commit(client, 0);
                }
                for _ in 0..counts.add(client, bytes.len(), request_bytes) {
                    outbox.room(answer.len()).copy_from_slice(answer);
                    outbox.commit(client, answer.len());
                }
            });
        }
        for (key, floor) in floors.iter_mut().enumerate() {
            let (Some(floor), Some(client)) = (floor, house.clients.get(key)) else {
                continue;
            };
            if !floor.outbox.is_empty() {
                // What is not taken now is offered again in the next turn that brings anything; an error shows in reading.
                let _ = floor.outbox.write(&client.stream);
            }
        }
        if woken.knocks {
            for key in house.accept() {
                if floors.len() <= key {
                    floors.resize_with(key + 1, || None);
                }
                floors[key] = Some(Floor {
                    inbox: Inbox::new(),
                    outbox: Outbox::default(),
                    counts: Counts::default(),
                });
            }
        }
    }
}

fn one_to_one(house: &mut House, request_bytes: usize, answer: &[u8]) -> io::Result<()> {
    let mut counts = Counts::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut readable = Vec::new();
    loop {
        let woken = house.wait(&mut readable, false)?;
        if woken.ends {
            house.leave();
            return Ok(());
        }
        for key in std::mem::take(&mut readable) {
            match house.read(key, &mut buffer, &mut readable) {
                Readout::Bytes(bytes) => {
                    for _ in 0..counts.add(key, bytes, request_bytes) {
                        house.clients[key].write(answer);
                    }
                }
                Readout::Empty => {}
                Readout::Closed => {
                    counts.forget(key);
                    house.clients.try_remove(key);
                }
            }
        }
        if woken.knocks {
            house.accept();
        }
    }
}
