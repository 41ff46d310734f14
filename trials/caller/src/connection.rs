//! One connection to the proxy, in two halves, so that an answer can be read while its request is still being written.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

/// A connection to the proxy.
#[derive(Debug)]
pub struct Connection {
    pub reader: Reader,
    pub writer: OwnedWriteHalf,
}

/// What comes, and what of it has not been looked at.
#[derive(Debug)]
pub struct Reader {
    half: OwnedReadHalf,
    pub(crate) unread: BytesMut,
}

impl Connection {
    pub async fn open(proxy: SocketAddr) -> io::Result<Self> {
        Ok(Self::new(TcpStream::connect(proxy).await?))
    }

    /// One whose receive buffer is as small as the kernel lets it be: what is not read soon waits in the proxy.
    pub async fn open_narrow(proxy: SocketAddr) -> io::Result<Self> {
        let socket = match proxy {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_recv_buffer_size(4 << 10)?;
        Ok(Self::new(socket.connect(proxy).await?))
    }

    fn new(stream: TcpStream) -> Self {
        // Refused only where the socket is dead already, which the first write tells as well.
        let _ = stream.set_nodelay(true);
        let (half, writer) = stream.into_split();
        let reader = Reader {
            half,
            unread: BytesMut::new(),
        };
        Self { reader, writer }
    }

    /// Leaves without a goodbye: what is on its way either way is thrown away, and the proxy gets a RST.
    pub fn abort(self) {
        let stream = self.reader.half.reunite(self.writer);
        if let Ok(stream) = stream {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

impl Reader {
    /// Reads once. False at the connection's end, however it ended.
    pub(crate) async fn fill(&mut self) -> bool {
        self.unread.reserve(16 << 10);
        matches!(self.half.read_buf(&mut self.unread).await, Ok(length) if length > 0)
    }

    /// Whether something has come that nobody asked for.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }
}
