//! A port that cannot be had: who has it, and what to type instead.
//!
//! Source: Linux `proc(5)`, `/proc/net/tcp` (hexadecimal, each 32-bit word of the address in the machine's byte order) and
//! `/proc/PID/fd`. Elsewhere, or without the right to look, the message is the same without the name.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::cli::escape::escape_short;
use crate::policy::Remedy;

/// The message for an address that could not be bound; ends with what to type and a line end. Looks up who
/// has it.
pub fn bind_error(address: SocketAddr, error: &io::Error, remedy: Remedy) -> String {
    let holder = match error.kind() {
        io::ErrorKind::AddrInUse => holder(address),
        _ => None,
    };
    message(address, error, holder.as_ref(), remedy)
}

/// The process that listens at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its name, as it gave it.
    pub program: String,
}

/// Who listens at that address, or at all addresses on that port.
pub fn holder(address: SocketAddr) -> Option<Holder> {
    let sockets = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| listening(&text));
    let inodes: Vec<u64> = sockets
        .filter(|(local, _)| collides(*local, address))
        .map(|(_, inode)| inode)
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let wanted: Vec<String> = inodes.iter().map(|i| format!("socket:[{i}]")).collect();
    let processes = fs::read_dir("/proc").ok()?;
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|s| s.parse().ok()) else {
            continue;
        };
        // A process of somebody else does not let us look.
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let Ok(link) = fs::read_link(descriptor.path()) else {
                continue;
            };
            if link
                .to_str()
                .is_some_and(|link| wanted.iter().any(|w| w == link))
            {
                let program = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return Some(Holder {
                    pid,
                    program: program.trim_end().to_owned(),
                });
            }
        }
    }
    None
}

fn message(
    address: SocketAddr,
    error: &io::Error,
    holder: Option<&Holder>,
    remedy: Remedy,
) -> String {
    let (reason, other) = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let reason = match holder {
                Some(Holder { pid, program }) if program.is_empty() => {
                    format!("in use by pid {pid}")
                }
                Some(Holder { pid, program }) => {
                    format!("in use by pid {pid} ({})", escape_short(program, 32))
                }
                None => "in use by another program".to_owned(),
            };
            (reason, address.port().checked_add(1).unwrap_or(8080))
        }
        io::ErrorKind::PermissionDenied => (
            "this user may not listen on ports below 1024".to_owned(),
            8080,
        ),
        io::ErrorKind::AddrNotAvailable => (
            format!("this machine has no address {}", address.ip()),
            address.port(),
        ),
        _ => (error.to_string(), 8080),
    };
    let instead = match address.ip() {
        ip if ip.is_loopback() || error.kind() == io::ErrorKind::AddrNotAvailable => {
            format!(":{other}")
        }
        ip => SocketAddr::new(ip, other).to_string(),
    };
    let instead = match remedy {
        Remedy::Flag => format!("--listen {instead}"),
        Remedy::File => format!("address = \"{instead}\" in its [[listener]]"),
    };
    let take = match error.kind() {
        io::ErrorKind::AddrNotAvailable => "Take loopback with",
        _ => "Take another port with",
    };
    format!("error: cannot listen on {address}: {reason}. {take}  {instead}\n")
}

/// Whether somebody who has `held` keeps us from having `wanted`.
fn collides(held: SocketAddr, wanted: SocketAddr) -> bool {
    held.port() == wanted.port()
        && (held.ip() == wanted.ip() || held.ip().is_unspecified() || wanted.ip().is_unspecified())
}

/// Addresses and inodes of the sockets that listen, from the text of `/proc/net/tcp` or `tcp6`.
fn listening(text: &str) -> Vec<(SocketAddr, u64)> {
    const LISTEN: &str = "0A";
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut columns = line.split_ascii_whitespace();
            let local = columns.nth(1)?;
            let state = columns.nth(1)?;
            let inode = columns.nth(5)?.parse().ok()?;
            (state == LISTEN).then_some(())?;
            Some((socket_address(local)?, inode))
        })
        .collect()
}

fn socket_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for start in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(start..start + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn whoever_listens_is_found_by_its_own_id() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has nothing to find there.
            let Ok(socket) = TcpListener::bind(address) else {
                continue;
            };
            let address = socket.local_addr().unwrap();
            let found = holder(address).expect("we listen");
            assert_eq!(found.pid, std::process::id());
            assert!(!found.program.is_empty());
            let taken = TcpListener::bind(address).unwrap_err();
            let told = bind_error(address, &taken, Remedy::Flag);
            assert!(
                told.contains(&format!("pid {} (", std::process::id())),
                "{told}"
            );
            // Nobody of another address is in its way.
            let elsewhere = SocketAddr::new("192.0.2.1".parse().unwrap(), address.port());
            assert!(!collides(address, elsewhere));
            drop(socket);
        }
    }

    #[test]
    fn each_message_ends_with_what_to_type() {
        let node = Holder {
            pid: 4121,
            program: "node".to_owned(),
        };
        for (address, kind, holder, expected) in [
            (
                "127.0.0.1:8080",
                io::ErrorKind::AddrInUse,
                Some(&node),
                "error: cannot listen on 127.0.0.1:8080: in use by pid 4121 (node). Take another port with  --listen :8081",
            ),
            (
                "0.0.0.0:65535",
                io::ErrorKind::AddrInUse,
                None,
                "error: cannot listen on 0.0.0.0:65535: in use by another program. Take another port with  --listen 0.0.0.0:8080",
            ),
            (
                "127.0.0.1:80",
                io::ErrorKind::PermissionDenied,
                None,
                "error: cannot listen on 127.0.0.1:80: this user may not listen on ports below 1024. Take another port with  --listen :8080",
            ),
            (
                "192.0.2.1:81",
                io::ErrorKind::AddrNotAvailable,
                None,
                "error: cannot listen on 192.0.2.1:81: this machine has no address 192.0.2.1. Take loopback with  --listen :81",
            ),
        ] {
            let message = |remedy| {
                let error = io::Error::from(kind);
                message(address.parse().unwrap(), &error, holder, remedy)
            };
            assert_eq!(message(Remedy::Flag), format!("{expected}\n"));
            let (before, instead) = expected.split_once("--listen ").unwrap();
            assert_eq!(
                message(Remedy::File),
                format!("{before}address = \"{instead}\" in its [[listener]]\n")
            );
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_table_is_read_and_only_listeners_are_taken() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 777 1\n\
             1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1000        0 778 1\n\
             2: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 779 1\n\
             3: broken\n\
             4: 010000:1F90 0:0 0A 0:0 0:0 0 0 0 780\n";
        let found = listening(text);
        assert_eq!(
            found,
            [
                ("127.0.0.1:8080".parse().unwrap(), 777),
                ("[::1]:80".parse().unwrap(), 779),
            ]
        );
    }
}
