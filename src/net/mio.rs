//! The real machine: mio, socket2 and the clocks. The only file that reads a clock on the data path.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::task::Wake;
use std::time::{Duration, Instant, SystemTime};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Waker};
use socket2::{Domain, Protocol, TcpKeepalive, Type};

use crate::net::driver::{Driver, EVENTS_MAX, Event, Now, Socket, Token};
use crate::net::slots::Key;

/// How many clients may wait in a listener's queue.
const BACKLOG: i32 = 4096;
/// Generation that no [`Key`] has: its tokens are listeners and the inbox.
const RESERVED: u32 = u32::MAX;
const INBOX: u32 = u32::MAX;
/// After so much silence a client is asked whether it is still there, then in these intervals, so many times.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 4;
/// What the kernel takes for a client beyond what is on its way to it, bytes. Left to itself it takes megabytes for each that
/// does not read, and asks for more only when a third of that is gone: a slow reader would look as if it stood still. Here it
/// asks again at half of this, which is the progress that the stall limit wants.
const UNSENT_BYTES_MAX: u32 = 32 << 10;
/// A backend that acknowledges nothing for so long is gone, and so is one that takes nothing: its window stays closed. It
/// finds dead peers without PINGs.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);
/// After so much silence a backend's kernel is asked whether it is still there, then in these intervals: a call that waits for
/// its answer has nothing under way that could go unacknowledged.
const BACKEND_KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const BACKEND_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// A core's sockets on the real machine.
#[derive(Debug)]
pub struct MioDriver {
    poll: Poll,
    events: Events,
    listeners: Vec<Option<TcpListener>>,
    waker: Arc<Waker>,
    /// A descriptor that is held for nothing, so that it can be let go when there is no other.
    spare: Option<File>,
}

impl MioDriver {
    /// A driver that listens on those sockets; the index is the listener's id.
    pub fn new(listeners: Vec<std::net::TcpListener>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), to_mio(Token::Inbox))?);
        let mut own = Vec::with_capacity(listeners.len());
        for (index, listener) in listeners.into_iter().enumerate() {
            let mut listener = TcpListener::from_std(listener);
            let token = to_mio(Token::Listener(index as u32));
            poll.registry()
                .register(&mut listener, token, Interest::READABLE)?;
            own.push(Some(listener));
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            listeners: own,
            waker,
            spare: spare(),
        })
    }

    /// What another thread rings after it has put something into this core's inbox.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// The same for rooms that do not know mio.
    pub fn bell(&self) -> std::task::Waker {
        Arc::new(Bell(self.waker())).into()
    }
}

struct Bell(Arc<Waker>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Err(error) = self.0.wake() {
            log::error!("cannot wake a worker: {error}");
        }
    }
}

/// Binds one listening socket of a `SO_REUSEPORT` group, non-blocking.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // `[::]` means IPv6 alone; who wants both lists both. Otherwise the two would fight over the port.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Inherited by every client's socket: one that has vanished from a silent stream is found in two minutes.
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    // Inherited as well.
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether somebody listens on this address already. `SO_REUSEPORT` would let us share it in silence with another wharf of
/// the same user; a person who starts two wants to be told.
pub fn in_use(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

impl Driver for MioDriver {
    type Socket = TcpStream;

    fn wait(&mut self, until: Option<Instant>, events: &mut Vec<Event>) -> Now {
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        if let Err(error) = self.poll.poll(&mut self.events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            // Nothing can be waited for any more; the loop spins, and says so.
            log::error!("cannot wait for events: {error}");
        }
        events.extend(self.events.iter().map(|event| Event {
            token: from_mio(event.token()),
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed(),
            error: event.is_error(),
        }));
        self.events.clear();
        Now {
            instant: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    fn accept(&mut self, listener: u32) -> io::Result<(TcpStream, SocketAddr)> {
        let Some(Some(listener)) = self.listeners.get(listener as usize) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let (stream, peer) = listener.accept()?;
        // One write per turn is all there is, so waiting for more to send can only cost latency.
        let _ = stream.set_nodelay(true);
        Ok((stream, peer))
    }

    fn turn_away(&mut self, listener: u32) -> io::Result<()> {
        let Some(Some(listener)) = self.listeners.get(listener as usize) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        self.spare = None;
        let accepted = listener.accept();
        let turned_away = accepted.map(|(client, _)| drop(client));
        // Another thread may have been faster. Then the next one to ask finds out.
        self.spare = spare();
        turned_away
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address)?;
        let socket = socket2::SockRef::from(&stream);
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT));
        let keepalive = TcpKeepalive::new()
            .with_time(BACKEND_KEEPALIVE_IDLE)
            .with_interval(BACKEND_KEEPALIVE_INTERVAL);
        let _ = socket.set_tcp_keepalive(&keepalive);
        Ok(stream)
    }

    fn register(&mut self, socket: &mut TcpStream, key: Key) -> io::Result<()> {
        let token = to_mio(Token::Transport(key));
        self.poll
            .registry()
            .register(socket, token, Interest::READABLE | Interest::WRITABLE)
    }

    fn close_listener(&mut self, listener: u32) {
        if let Some(place) = self.listeners.get_mut(listener as usize)
            && let Some(mut listener) = place.take()
        {
            let _ = self.poll.registry().deregister(&mut listener);
        }
    }
}

impl Socket for TcpStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Read::read(self, into)
    }

    fn write_vectored(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        Write::write_vectored(self, from)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn connected(&mut self) -> io::Result<bool> {
        if let Some(error) = self.take_error()? {
            return Err(error);
        }
        match self.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn to_mio(token: Token) -> mio::Token {
    let (high, low) = match token {
        Token::Transport(key) => (key.generation, key.index),
        Token::Listener(index) => (RESERVED, index),
        Token::Inbox => (RESERVED, INBOX),
    };
    mio::Token((u64::from(high) << 32 | u64::from(low)) as usize)
}

fn from_mio(token: mio::Token) -> Token {
    let (high, low) = ((token.0 as u64 >> 32) as u32, token.0 as u32);
    match (high, low) {
        (RESERVED, INBOX) => Token::Inbox,
        (RESERVED, index) => Token::Listener(index),
        (generation, index) => Token::Transport(Key { index, generation }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u_18_a_backend_that_has_vanished_is_found_within_twenty_seconds_by_the_kernel() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut driver = MioDriver::new(Vec::new()).unwrap();
        let stream = driver.connect(listener.local_addr().unwrap()).unwrap();
        let socket = socket2::SockRef::from(&stream);
        let limit = Duration::from_secs(20);
        // Of what was sent, and of a window that stays closed.
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(limit));
        // Of silence: the second question is unanswered for less than that.
        assert!(socket.keepalive().unwrap());
        let (idle, interval) = (
            socket.tcp_keepalive_time().unwrap(),
            socket.tcp_keepalive_interval().unwrap(),
        );
        assert!(idle + interval <= limit, "{idle:?} and {interval:?}");
    }

    #[test]
    fn tokens_survive_the_way_through_mio() {
        for token in [
            Token::Inbox,
            Token::Listener(0),
            Token::Listener(3),
            Token::Transport(Key {
                index: 0,
                generation: 0,
            }),
            Token::Transport(Key {
                index: u32::MAX,
                generation: u32::MAX - 1,
            }),
        ] {
            assert_eq!(from_mio(to_mio(token)), token);
        }
    }
}
