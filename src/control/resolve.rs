//! Names to addresses, on a thread of its own, since the system's resolver blocks.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

/// How many names may wait to be resolved; beyond it they are not asked for. That the thread is behind is known then; asking
/// again later is soon enough.
const NAMES_MAX: usize = 1024;
/// How many answers may wait to be heard; then the thread waits.
const ANSWERS_MAX: usize = 32;

/// What a name means now.
#[derive(Debug)]
pub struct Resolved {
    /// `host:port`, as it was asked.
    pub name: Arc<str>,
    /// Its addresses, in the resolver's order, each once; or what the resolver said.
    pub addresses: Result<Vec<SocketAddr>, String>,
}

/// The thread's two ends.
#[derive(Debug)]
pub struct Resolver {
    names: Sender<Arc<str>>,
    /// What they mean.
    pub answers: Receiver<Resolved>,
}

impl Resolver {
    /// Starts the thread. It ends when the sender is dropped.
    pub fn start() -> std::io::Result<Self> {
        let (names, asked) = unbounded::<Arc<str>>();
        let (answer, answers) = bounded(ANSWERS_MAX);
        thread::Builder::new()
            .name("wharf-resolve".to_owned())
            .spawn(move || {
                for name in asked {
                    let addresses = resolve(&name);
                    if answer.send(Resolved { name, addresses }).is_err() {
                        break;
                    }
                }
            })?;
        Ok(Self { names, answers })
    }

    /// Has a name resolved, unless too many wait.
    pub fn ask(&self, name: &Arc<str>) {
        if self.names.len() < NAMES_MAX {
            let _ = self.names.send(Arc::clone(name));
        }
    }
}

fn resolve(name: &str) -> Result<Vec<SocketAddr>, String> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in name.to_socket_addrs().map_err(|error| error.to_string())? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_has_an_address_and_each_stands_once() {
        let addresses = resolve("localhost:50051").expect("every machine knows localhost");
        assert!(!addresses.is_empty());
        assert!(
            addresses
                .iter()
                .all(|address| address.ip().is_loopback() && address.port() == 50051)
        );
        let mut once = addresses.clone();
        once.dedup();
        assert_eq!(once, addresses);
        assert!(resolve("no-such-host.invalid:1").is_err());
    }

    #[test]
    fn so_many_names_wait_and_no_more() {
        let (names, asked) = unbounded();
        let resolver = Resolver {
            names,
            answers: bounded(0).1,
        };
        let name = Arc::from("localhost:1");
        (0..NAMES_MAX + 3).for_each(|_| resolver.ask(&name));
        assert_eq!(asked.len(), NAMES_MAX);
    }
}
