//! Sockets, time and readiness: the only room with system calls and a clock. It has never heard of HTTP.
//!
//! A [`Driver`] is the machine as a core sees it; `mio` is the real one, `sim` a seeded one. A [`Transport`] is the bytes of
//! one socket with its read-ahead and write-behind; a [`Bridge`] shows it to `h2`.

pub mod bridge;
pub mod driver;
pub mod mio;
pub mod reactor;
pub mod ready;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod slots;
pub mod stall;
pub mod timers;
pub mod transport;

pub use bridge::{Bridge, Sieve};
pub use driver::{AcceptFault, Driver, EVENTS_MAX, Event, Now, Socket, Token};
pub use reactor::{Place, Reactor, Task};
pub use ready::{Bell, ReadyList, Wakeup, trim};
pub use slots::{Key, Slots};
pub use stall::Stall;
pub use timers::{Alarm, TimerId, Timers};
pub use transport::{Filled, SharedTransport, Staging, Transport};
