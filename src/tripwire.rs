//! Where a test can have the house panic: every step of a call trips a wire, and the one that was armed goes off, once.
//!
//! Owns the names of those places and nothing of what happens there. It is compiled to nothing but in simulation. It stands
//! outside the rooms, because the lowest of them have such places too.

/// A step that can be made to panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A socket is about to be read.
    Read,
    /// It was read, and nobody has been told what came.
    HasRead,
    /// A socket is about to be written to.
    Write,
    /// It was written to, and nobody has been told how much it took.
    Written,
    /// A client is accepted.
    Accept,
    /// A connection to a backend is begun.
    Connect,
    /// Somebody is woken; also by `h2`, under its lock.
    Wake,
    /// A part of a request is translated.
    RequestCodec,
    /// A part of an answer is translated, and its parts are about to be sent.
    ResponseCodec,
    /// A part of an answer has been sent, and its codec has not been told.
    Sent,
    /// An exchange makes a step.
    Exchange,
    /// A stream is asked for.
    Open,
    /// A client's connection is advanced.
    Downstream,
    /// A backend's connection is advanced.
    Upstream,
    /// It is decided what becomes of a request.
    Admit,
    /// A connection's engine is lent to a new exchange.
    Lend,
    /// A call has ended and is taken out.
    Finish,
    /// A deadline has passed.
    Expire,
    /// A command is obeyed.
    Obey,
}

/// All of them.
pub const PLACES: [Place; 19] = [
    Place::Read,
    Place::HasRead,
    Place::Write,
    Place::Written,
    Place::Accept,
    Place::Connect,
    Place::Wake,
    Place::RequestCodec,
    Place::ResponseCodec,
    Place::Sent,
    Place::Exchange,
    Place::Open,
    Place::Downstream,
    Place::Upstream,
    Place::Admit,
    Place::Lend,
    Place::Finish,
    Place::Expire,
    Place::Obey,
];

/// The step of that name is being made.
#[inline(always)]
pub fn trip(place: Place) {
    #[cfg(feature = "sim")]
    armed::trip(place);
    #[cfg(not(feature = "sim"))]
    let _ = place;
}

#[cfg(feature = "sim")]
pub use armed::{arm, disarm};

#[cfg(feature = "sim")]
mod armed {
    use std::cell::Cell;

    use super::Place;

    thread_local! {
        static ARMED: Cell<Option<(Place, u64)>> = const { Cell::new(None) };
        static TRIPPED: Cell<u64> = const { Cell::new(0) };
    }

    /// The `nth` time from now that this thread comes by that place it panics: 1 is the next. 0 only counts.
    pub fn arm(place: Place, nth: u64) {
        TRIPPED.set(0);
        ARMED.set(Some((place, nth)));
    }

    /// No place panics any more. How often this thread came by since [`arm`].
    pub fn disarm() -> u64 {
        ARMED.set(None);
        TRIPPED.get()
    }

    pub(super) fn trip(place: Place) {
        // A panic while another one unwinds would be nobody's to catch.
        if let Some((armed, nth)) = ARMED.get()
            && armed == place
            && !std::thread::panicking()
        {
            TRIPPED.set(TRIPPED.get() + 1);
            if TRIPPED.get() == nth {
                panic!("the wire at {place:?} was tripped for the {nth}th time");
            }
        }
    }
}
