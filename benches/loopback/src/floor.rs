//! The floors: proxies that only move bytes, with as few system calls as can be. What a real proxy costs above them is what
//! it does; what they cost is the kernel's. Neither looks at a byte that it moves.
//!
//! *mux*: all clients share one connection to `floor-echo`. What is read from a client goes there behind a head of eight
//! bytes, what comes back is written to the client once it is whole; everything is written once per turn. A proxy that
//! multiplexes can do with no fewer system calls. *one-to-one*: each client has a connection of its own, as with a plain TCP
//! proxy.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use serde_json::json;
use slab::Slab;

use crate::socket::{self, Readout, Stop};
use crate::{clock, say};

/// What one read of a client takes at most, in bytes: a call of 64 KiB as a whole.
const READ_BYTES: usize = 128 * 1024;

/// What one read of the shared connection takes at most, in bytes.
const SHARED_BYTES: usize = 1024 * 1024;

/// The head of a piece on the shared connection: which client, and how many bytes; both 32 bits, the highest first. No bytes
/// means that the client has left, and is answered in kind, so that its number can be given to another.
pub(crate) const PIECE_HEAD: usize = 8;

const STOP: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);
const SHARED: Token = Token(usize::MAX - 2);

/// What `loopback floor` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which floor.
    #[arg(long)]
    kind: Kind,
    /// Where clients come in; port 0 takes a free one.
    #[arg(long)]
    listen: SocketAddr,
    /// Where `loopback floor-echo` listens, told the same kind.
    #[arg(long)]
    backend: SocketAddr,
    /// Seconds after which it ends by itself.
    #[arg(long = "for", default_value_t = 600)]
    seconds: u64,
}

/// How clients come to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// All on one connection.
    Mux,
    /// Each on its own.
    OneToOne,
}

/// Moves bytes until it is told to stop or its time is over.
pub(crate) fn main(args: Args) -> ExitCode {
    say::exit(match args.kind {
        Kind::Mux => mux(&args),
        Kind::OneToOne => one_to_one(&args),
    })
}

/// A connection and what it did not take yet.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    readable: bool,
    /// It has ended: it is read until nothing is left, since no edge will come for it any more.
    ended: bool,
    writable: bool,
    waiting: VecDeque<u8>,
    /// It has left, and its number is not free yet.
    left: bool,
}

impl Client {
    fn new(stream: TcpStream, writable: bool) -> Self {
        Self {
            stream,
            readable: false,
            ended: false,
            writable,
            waiting: VecDeque::new(),
            left: false,
        }
    }

    /// Writes at once what can be written, and keeps the rest. An error shows when it is read.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) {
        if self.left {
            return;
        }
        if self.waiting.is_empty() && self.writable {
            let taken = socket::write(&self.stream, bytes).unwrap_or(bytes.len());
            bytes = &bytes[taken..];
            self.writable = bytes.is_empty();
        }
        self.waiting.extend(bytes);
    }

    /// The socket takes bytes again.
    fn resume(&mut self) {
        self.writable = true;
        while !self.waiting.is_empty() && self.writable {
            let (first, _) = self.waiting.as_slices();
            let offered = first.len();
            let taken = socket::write(&self.stream, first).unwrap_or(offered);
            self.writable = taken == offered;
            self.waiting.drain(..taken);
        }
    }
}

/// What both floors and their backend have in common: a listener, and clients by number.
pub(crate) struct House {
    pub(crate) poll: Poll,
    pub(crate) events: Events,
    listener: TcpListener,
    pub(crate) clients: Slab<Client>,
    until_ns: u64,
    _stop: Stop,
}

impl House {
    /// Listens, but says nothing yet.
    pub(crate) fn new(listen: SocketAddr, seconds: u64) -> io::Result<Self> {
        socket::raise_descriptors();
        let poll = Poll::new()?;
        let stop = Stop::on(poll.registry(), STOP)?;
        let mut listener = socket::listen(listen)?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(4096),
            listener,
            clients: Slab::new(),
            until_ns: clock::now_ns() + seconds * 1_000_000_000,
            _stop: stop,
        })
    }

    /// Says where it listens.
    pub(crate) fn announce(&self) -> io::Result<()> {
        say::listening(self.listener.local_addr()?);
        Ok(())
    }

    /// The last line, when it ends.
    pub(crate) fn leave(&self) {
        say::line(&json!({ "cpu_ns": clock::own_cpu_ns() }));
    }

    /// Waits for what is next, and sorts it: readable clients go to `readable`; who can be written to again is written to.
    /// It only looks where there is something to do already: readable clients, or what `busy` says.
    pub(crate) fn wait(&mut self, readable: &mut Vec<usize>, busy: bool) -> io::Result<Woken> {
        let rests = readable.is_empty() && !busy;
        let timeout = if rests {
            Duration::from_millis(250)
        } else {
            Duration::ZERO
        };
        socket::wait(&mut self.poll, &mut self.events, timeout)?;
        let mut woken = Woken::default();
        for event in &self.events {
            match event.token() {
                STOP => woken.ends = true,
                LISTENER => woken.knocks = true,
                SHARED => {
                    if event.is_read_closed() {
                        return Err(io::Error::other("the shared connection was closed"));
                    }
                    woken.shared_reads |= event.is_readable();
                    woken.shared_writes |= event.is_writable();
                }
                Token(key) => {
                    let Some(client) = self.clients.get_mut(key) else {
                        continue;
                    };
                    if event.is_writable() {
                        client.resume();
                    }
                    client.ended |= event.is_read_closed();
                    if event.is_readable() && !std::mem::replace(&mut client.readable, true) {
                        readable.push(key);
                    }
                }
            }
        }
        woken.ends |= rests && clock::now_ns() >= self.until_ns;
        Ok(woken)
    }

    /// Takes in who waits at the door; the numbers of the new ones.
    pub(crate) fn accept(&mut self) -> Vec<usize> {
        let mut new = Vec::new();
        while let Ok((mut stream, _)) = self.listener.accept() {
            let slot = self.clients.vacant_entry();
            if stream.set_nodelay(true).is_ok()
                && socket::register(self.poll.registry(), &mut stream, Token(slot.key())).is_ok()
            {
                new.push(slot.key());
                slot.insert(Client::new(stream, true));
            }
        }
        new
    }

    /// Reads a client once into `buffer`: what came. A client that may have more is listed again.
    pub(crate) fn read(
        &mut self,
        key: usize,
        buffer: &mut [u8],
        again: &mut Vec<usize>,
    ) -> Readout {
        let Some(client) = self.clients.get_mut(key).filter(|client| !client.left) else {
            return Readout::Empty;
        };
        let readout = socket::read(&client.stream, buffer);
        client.readable = match readout {
            Readout::Bytes(bytes) => client.ended || bytes == buffer.len(),
            _ => false,
        };
        if client.readable {
            again.push(key);
        }
        readout
    }
}

impl House {
    /// Reads once what a floor sent on the connection that its clients share.
    pub(crate) fn read_shared(
        &mut self,
        key: usize,
        inbox: &mut Inbox,
        again: &mut Vec<usize>,
    ) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(key) else {
            return Ok(());
        };
        client.readable = inbox.read(&client.stream)? || client.ended;
        if client.readable {
            again.push(key);
        }
        Ok(())
    }
}

/// What a wait has brought besides readable clients.
#[derive(Debug, Default)]
pub(crate) struct Woken {
    pub(crate) ends: bool,
    pub(crate) knocks: bool,
    pub(crate) shared_reads: bool,
    pub(crate) shared_writes: bool,
}

/// Bytes on their way to the shared connection. Reads go straight into it: nothing is copied twice.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Outbox {
    /// Room for a piece of at most `length` bytes, its head not counted.
    pub(crate) fn room(&mut self, length: usize) -> &mut [u8] {
        let end = self.end + PIECE_HEAD + length;
        if self.bytes.len() < end {
            self.bytes.resize(end.next_power_of_two(), 0);
        }
        &mut self.bytes[self.end + PIECE_HEAD..end]
    }

    /// The room asked for last holds `length` bytes of client `key`.
    pub(crate) fn commit(&mut self, key: usize, length: usize) {
        self.room(length);
        self.bytes[self.end..self.end + 4].copy_from_slice(&(key as u32).to_be_bytes());
        self.bytes[self.end + 4..self.end + 8].copy_from_slice(&(length as u32).to_be_bytes());
        self.end += PIECE_HEAD + length;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    /// Writes once: whether all was taken.
    pub(crate) fn write(&mut self, stream: &TcpStream) -> io::Result<bool> {
        self.begin += socket::write(stream, &self.bytes[self.begin..self.end])?;
        if !self.is_empty() {
            return Ok(false);
        }
        (self.begin, self.end) = (0, 0);
        Ok(true)
    }
}

/// Bytes that came on the shared connection: whole pieces are taken out, the rest waits for more.
#[derive(Debug)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    end: usize,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; SHARED_BYTES],
            end: 0,
        }
    }

    /// Reads once: whether there may be more at once.
    pub(crate) fn read(&mut self, stream: &TcpStream) -> io::Result<bool> {
        let room = self.bytes.len() - self.end;
        match socket::read(stream, &mut self.bytes[self.end..]) {
            Readout::Bytes(bytes) => {
                self.end += bytes;
                Ok(bytes == room)
            }
            Readout::Empty => Ok(false),
            Readout::Closed => Err(io::Error::other("the shared connection was closed")),
        }
    }

    /// Gives each whole piece to `take`, in order.
    pub(crate) fn pieces(&mut self, mut take: impl FnMut(usize, &[u8])) {
        let mut at = 0;
        while let Some(&[k0, k1, k2, k3, l0, l1, l2, l3]) =
            self.bytes[at..self.end].first_chunk::<PIECE_HEAD>()
        {
            let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
            let end = at + PIECE_HEAD + length;
            if end > self.end {
                // A piece that does not fit even when it is alone: the buffer grows to it.
                if end - at > self.bytes.len() {
                    self.bytes.resize(end - at, 0);
                }
                break;
            }
            take(
                u32::from_be_bytes([k0, k1, k2, k3]) as usize,
                &self.bytes[at + PIECE_HEAD..end],
            );
            at = end;
        }
        self.bytes.copy_within(at..self.end, 0);
        self.end -= at;
    }
}

fn mux(args: &Args) -> io::Result<()> {
    let mut house = House::new(args.listen, args.seconds)?;
    let mut shared = TcpStream::from_std({
        let stream = std::net::TcpStream::connect(args.backend)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        stream
    });
    socket::register(house.poll.registry(), &mut shared, SHARED)?;
    house.announce()?;
    let (mut outbox, mut inbox) = (Outbox::default(), Inbox::new());
    let mut shared_writable = true;
    let mut shared_readable = false;
    let mut readable = Vec::new();
    let mut keys = Vec::new();
    loop {
        let woken = house.wait(&mut readable, shared_readable)?;
        if woken.ends {
            house.leave();
            return Ok(());
        }
        shared_writable |= woken.shared_writes;
        shared_readable |= woken.shared_reads;
        keys.clear();
        keys.append(&mut readable);
        for key in keys.iter().copied() {
            match house.read(key, outbox.room(READ_BYTES), &mut readable) {
                Readout::Bytes(bytes) => outbox.commit(key, bytes),
                Readout::Empty => {}
                Readout::Closed => {
                    house.clients[key].left = true;
                    outbox.commit(key, 0);
                }
            }
        }
        if shared_readable {
            shared_readable = inbox.read(&shared)?;
            let clients = &mut house.clients;
            inbox.pieces(|key, bytes| {
                if bytes.is_empty() {
                    clients.try_remove(key);
                } else if let Some(client) = clients.get_mut(key) {
                    client.write(bytes);
                }
            });
        }
        if shared_writable && !outbox.is_empty() {
            shared_writable = outbox.write(&shared)?;
        }
        if woken.knocks {
            house.accept();
        }
    }
}

fn one_to_one(args: &Args) -> io::Result<()> {
    let mut house = House::new(args.listen, args.seconds)?;
    house.announce()?;
    // Who belongs to whom: both ends of a pair are clients here.
    let mut other: Vec<usize> = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut readable = Vec::new();
    let mut keys = Vec::new();
    loop {
        let woken = house.wait(&mut readable, false)?;
        if woken.ends {
            house.leave();
            return Ok(());
        }
        keys.clear();
        keys.append(&mut readable);
        for key in keys.iter().copied() {
            match house.read(key, &mut buffer, &mut readable) {
                Readout::Bytes(bytes) => {
                    if let Some(client) = house.clients.get_mut(other[key]) {
                        client.write(&buffer[..bytes]);
                    }
                }
                Readout::Empty => {}
                Readout::Closed => {
                    house.clients.try_remove(key);
                    house.clients.try_remove(other[key]);
                }
            }
        }
        if woken.knocks {
            for key in house.accept() {
                let slot = house.clients.vacant_entry();
                let peer = slot.key();
                let connected = socket::connect(args.backend, None).and_then(|mut stream| {
                    socket::register(house.poll.registry(), &mut stream, Token(peer))?;
                    Ok(stream)
                });
                let Ok(stream) = connected else {
                    house.clients.try_remove(key);
                    continue;
                };
                // It is there once it is writable, and until then what is for it waits.
                slot.insert(Client::new(stream, false));
                let largest = key.max(peer);
                if other.len() <= largest {
                    other.resize(largest + 1, usize::MAX);
                }
                (other[key], other[peer]) = (peer, key);
            }
        }
    }
}
