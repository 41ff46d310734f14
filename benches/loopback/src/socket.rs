//! Sockets as all programs here use them: without blocking, without delay, registered once, edge by edge. Owns how they are
//! made, how they are read and written, and how a program is told to stop. It never looks at a byte.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::{Domain, Protocol, Socket, Type};

/// How many connections may wait to be accepted; the kernel lowers it to its own limit.
const BACKLOG: i32 = 4096;

/// What one read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readout {
    /// So many bytes; where that is less than there was room for, the next edge says when there are more.
    Bytes(usize),
    /// Nothing now.
    Empty,
    /// The other side has ended, or the connection is broken.
    Closed,
}

/// Raises the number of descriptors to what is allowed at most, and says how many that are.
pub(crate) fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // What it is now has to do where it cannot be raised: who needs more will fail by name.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// A listener at `address`.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into()).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// A connection to `address` on its way: it is there once it is writable. `receive_bytes` makes the kernel's buffer for what
/// was not read yet that small.
pub(crate) fn connect(address: SocketAddr, receive_bytes: Option<usize>) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// Registers a connection for both edges, for good: nothing is registered again while it lives.
pub(crate) fn register(
    registry: &Registry,
    stream: &mut TcpStream,
    token: Token,
) -> io::Result<()> {
    registry.register(stream, token, Interest::READABLE | Interest::WRITABLE)
}

/// Reads once.
pub(crate) fn read(mut stream: &TcpStream, into: &mut [u8]) -> Readout {
    loop {
        match stream.read(into) {
            Ok(0) => return Readout::Closed,
            Ok(bytes) => return Readout::Bytes(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Readout::Empty,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Readout::Closed,
        }
    }
}

/// Writes once: how many of `bytes` were taken (fewer means that an edge will say when more can be), or that the
/// connection is broken.
pub(crate) fn write(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            taken => return taken,
        }
    }
}

/// Where a program hears that it shall stop: SIGTERM and SIGINT make a token readable.
#[derive(Debug)]
pub(crate) struct Stop {
    _pipe: mio::net::UnixStream,
}

impl Stop {
    /// Listens for the signals from now on.
    pub(crate) fn on(registry: &Registry, token: Token) -> io::Result<Self> {
        let (heard, told) = UnixStream::pair()?;
        heard.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(SIGTERM, told.try_clone()?)?;
        signal_hook::low_level::pipe::register(SIGINT, told)?;
        let mut pipe = mio::net::UnixStream::from_std(heard);
        registry.register(&mut pipe, token, Interest::READABLE)?;
        Ok(Self { _pipe: pipe })
    }
}

/// Waits for readiness for at most `timeout`; a signal that interrupts counts as nothing ready.
pub(crate) fn wait(
    poll: &mut mio::Poll,
    events: &mut mio::Events,
    timeout: Duration,
) -> io::Result<()> {
    match poll.poll(events, Some(timeout)) {
        Err(error) if error.kind() == ErrorKind::Interrupted => {
            events.clear();
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_named() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = listen(address).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
