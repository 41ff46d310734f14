//! The bytes of one socket: read-ahead, write-behind, sticky readiness, budgets.
//!
//! Owns the socket and every byte between it and the engine above. It never parses. Nobody reads or writes a socket but
//! through here, once per turn where it can be: a write is staged, and the turn flushes before it sleeps.
//!
//! Edge-triggered readiness has two traps, both closed here. A read that comes back short means *dry*, and no further
//! read is tried until the next edge; but once the kernel has said *read closed* no further edge will come, so from then on
//! the socket is read until it says 0 (invariant 11). And whoever stops for a reason of ours (a budget, a high-water mark)
//! leaves a note here, which the turn turns into a wake-up (invariant 1).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::mem;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};

use crate::net::driver::Socket;
use crate::net::ready::trim;
use crate::net::slots::Key;
use crate::net::stall::Stall;
use crate::tripwire::{Place, trip};

/// What one `read` may bring at most where it is shown, bytes.
const SCRATCH_BYTES: usize = 128 << 10;
/// What any other may bring, bytes: a request of 64 KiB with its head.
const BLOCK_BYTES: usize = 80 << 10;
/// From this size on what was read stays in the block that it came in, and that is all the block may hold in vain, bytes.
const KEPT_BYTES_MIN: usize = BLOCK_BYTES / 2;
/// How many blocks may be with those who have yet to write what is in them; what is read then is copied.
const LENT_MAX: usize = 32;
/// How many of them are asked for at one time.
const LENT_ASKED_MAX: usize = 4;
/// What one transport may read in one turn, bytes; then others have theirs.
const TURN_BYTES_MAX: u32 = 256 << 10;
/// How many steps a transport may have taken on its bytes in one turn: a chunk of a byte costs as much as one of a kilobyte.
const TURN_STEPS_MAX: u16 = 256;
/// And all together.
const TURN_STEPS_OF_ALL: u32 = 16 << 10;
/// And how many one may have that comes new where others have used them all, so that a few never wait for many.
const TURN_STEPS_MIN: u16 = 16;
/// Half of all is for those who were starved before and were called from the line; the others come new.
const TURN_STEPS_CALLED: u32 = TURN_STEPS_OF_ALL / 2;
/// From this size on a piece is written from where it lies instead of being copied, bytes.
pub(super) const COPY_BYTES_MAX: usize = 1 << 10;
/// So much of a buffer may be held by bytes that are a small part of it, bytes.
const SHARED_BYTES_MAX: usize = 4 << 10;
/// How many pieces go into one `writev`.
const PIECES_MAX: usize = 64;
/// The buffers that a core keeps for writing, when nobody has anything to write.
const SPARE_MAX: usize = 64;
/// What such a buffer begins with, and what it may have grown to, bytes. A peer that keeps a few bytes waiting keeps no more
/// than that for them.
const SPARE_BYTES_MIN: usize = 2 << 10;
const SPARE_BYTES_MAX: usize = 16 << 10;
/// The longest list that is kept for the next one who gathers, in pieces.
const LIST_PIECES_MAX: usize = 64;
/// So many places of an empty line are kept.
const LINE_KEPT: usize = 1024;

/// A transport with its two owners: the core's slab, which senses and flushes, and the engine, which speaks.
pub type SharedTransport<S> = Rc<RefCell<Transport<S>>>;

/// What the transports of one core share: a buffer to read into, buffers to write from, and the notes for the end of the turn.
pub struct Staging {
    /// Borrowed for one read: a panic inside gives it back. Empty while a transport shows what it has read where it lies.
    scratch: RefCell<Option<Box<Lying>>>,
    /// Borrowed for one read of what is copied away or kept where it lies; what keeps it leaves another one here.
    block: RefCell<BytesMut>,
    /// Such blocks, with those who have yet to write what is in them.
    lent: RefCell<VecDeque<Bytes>>,
    /// Empty, to be written from: most transports need one for the length of a turn.
    #[expect(clippy::vec_box, reason = "they go to their transports as they are")]
    spare: RefCell<Vec<Box<Unwritten>>>,
    /// For whoever gathers pieces before they are written; each puts it back within its step.
    list: Cell<Vec<Bytes>>,
    turn: Cell<u16>,
    /// Steps that may still be taken in this turn.
    steps: Cell<u32>,
    /// How many of them one transport may take.
    portion: Cell<u16>,
    dirty: Cell<Vec<Key>>,
    /// Backends' transports.
    starved: Cell<Vec<Key>>,
    /// Clients' transports that ran out of what a turn gives, each once, the first first.
    line: RefCell<VecDeque<Key>>,
}

impl fmt::Debug for Staging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staging")
            .field("turn", &self.turn.get())
            .finish_non_exhaustive()
    }
}

impl Default for Staging {
    fn default() -> Self {
        Self {
            scratch: RefCell::new(Some(Box::default())),
            block: RefCell::new(BytesMut::zeroed(BLOCK_BYTES)),
            lent: RefCell::default(),
            spare: RefCell::default(),
            list: Cell::default(),
            turn: Cell::new(0),
            steps: Cell::new(TURN_STEPS_OF_ALL),
            portion: Cell::new(TURN_STEPS_MAX),
            dirty: Cell::default(),
            starved: Cell::default(),
            line: RefCell::default(),
        }
    }
}

impl Staging {
    /// A new turn: everybody has a full budget again.
    pub fn next_turn(&self) {
        self.turn.set(self.turn.get().wrapping_add(1));
        self.steps.set(TURN_STEPS_OF_ALL);
    }

    /// Appends the transports with bytes to write, each once.
    pub fn take_dirty(&self, into: &mut Vec<Key>) {
        Self::drain(&self.dirty, into);
    }

    /// Whoever has been standing in the line for longest, and stands in it no more; he is to be woken and told
    /// ([`Transport::leave_line`]), if he is still there.
    pub fn next_in_line(&self) -> Option<Key> {
        let mut line = self.line.borrow_mut();
        let next = line.pop_front();
        if line.is_empty() && line.capacity() > LINE_KEPT {
            *line = VecDeque::new();
        }
        next
    }

    /// Whether somebody stands in the line, or has left and is still in it.
    pub fn has_line(&self) -> bool {
        !self.line.borrow().is_empty()
    }

    /// Who stands in the line, for the invariants. There may be some in it who have left.
    pub fn line(&self) -> Vec<Key> {
        self.line.borrow().iter().copied().collect()
    }

    /// So many were called from the line, and share half of the next turn.
    pub fn share_among(&self, called: usize) {
        let called = u32::try_from(called).unwrap_or(u32::MAX).max(1);
        let portion = u16::try_from(TURN_STEPS_CALLED / called).unwrap_or(u16::MAX);
        self.portion
            .set(portion.clamp(TURN_STEPS_MIN, TURN_STEPS_MAX));
    }

    /// Appends the backends' transports that ran out of budget with more to read. Clients' stand in the line.
    pub fn take_starved(&self, into: &mut Vec<Key>) {
        Self::drain(&self.starved, into);
    }

    fn take_scratch(&self) -> Box<Lying> {
        // Where there is none, whoever has it was stopped by its reader, or is gone with it.
        self.scratch.take().unwrap_or_default()
    }

    /// Another block, for who keeps the present one. `None`: there are so many already.
    fn another_block(&self) -> Option<BytesMut> {
        let mut lent = self.lent.borrow_mut();
        // Who was given one early is likely to be done with it; where he is not, he is asked again after the others.
        for _ in 0..LENT_ASKED_MAX {
            let Some(block) = lent.pop_front() else {
                break;
            };
            match block.try_into_mut() {
                Ok(block) => return Some(block),
                Err(block) => lent.push_back(block),
            }
        }
        (lent.len() < LENT_MAX).then(|| BytesMut::zeroed(BLOCK_BYTES))
    }

    /// A block that was kept comes back once nobody else has a part of it.
    fn lend(&self, block: Bytes) {
        let mut lent = self.lent.borrow_mut();
        if lent.len() < LENT_MAX {
            lent.push_back(block);
        }
    }

    fn take_spare(&self) -> Box<Unwritten> {
        let spare = self.spare.borrow_mut().pop();
        spare.unwrap_or_else(|| {
            Box::new(Unwritten {
                tail: BytesMut::with_capacity(SPARE_BYTES_MIN),
                ..Unwritten::default()
            })
        })
    }

    /// Keeps what has been written to its end.
    fn keep_spare(&self, mut written: Box<Unwritten>) {
        let mut spare = self.spare.borrow_mut();
        // What it gave away of its buffer for pieces has been written as well.
        written.tail.clear();
        let _ = written.tail.try_reclaim(SPARE_BYTES_MIN);
        let fits = (SPARE_BYTES_MIN..=SPARE_BYTES_MAX).contains(&written.tail.capacity())
            && written.pieces.capacity() <= LIST_PIECES_MAX;
        if fits && spare.len() < SPARE_MAX {
            written.stall = None;
            spare.push(written);
        }
    }

    fn drain(list: &Cell<Vec<Key>>, into: &mut Vec<Key>) {
        let mut keys = list.take();
        into.append(&mut keys);
        trim(&mut keys);
        list.set(keys);
    }

    fn push(list: &Cell<Vec<Key>>, key: Key) {
        let mut keys = list.take();
        // Whoever is asked again in the same step is noted once.
        if keys.last() != Some(&key) {
            keys.push(key);
        }
        list.set(keys);
    }
}

/// What a fill has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// So many bytes more.
    Bytes(usize),
    /// Nothing, until the kernel says otherwise.
    Dry,
    /// Nothing for this turn: a backend goes on in the next, a client when it is called.
    Starved,
    /// As much is unread as was allowed.
    Full,
    /// The peer has ended its side, or the socket has failed.
    Ended,
}

/// One socket's bytes.
#[derive(Debug)]
pub struct Transport<S> {
    socket: S,
    key: Key,
    staging: Rc<Staging>,

    unread: BytesMut,
    /// There while what was read is shown or kept where it lies; then `unread` is empty. One field for both: of thousands of
    /// connections few have either.
    lying: Option<Box<Lying>>,
    /// How much was taken from in front of it out of the same buffer, bytes.
    taken: u16,
    readable: bool,
    read_closed: bool,
    ended: bool,
    budget: u32,
    /// The last of its turns, as far as so small a number tells: one turn in 65,536 is taken for that one, and has what is left
    /// of its budget.
    turn: u16,
    /// Steps that were taken on its bytes in it.
    steps: u16,
    /// A client's, of which there may be thousands: when it is starved it stands in the line.
    queues: bool,
    /// It stands there, and reads nothing and takes no step until it is called.
    waits: bool,

    /// There while something is staged: of thousands of connections few have something to say.
    unwritten: Option<Box<Unwritten>>,
    writable: bool,
    connected: bool,
    dirty: bool,
    /// Somebody waits for room.
    refused: bool,
    shutdown: Shutdown,

    failed: Option<io::ErrorKind>,
    /// A write has failed: nothing that is staged will arrive, but what the peer sent before may still be read.
    deaf: bool,
    /// The kernel has reported an error on the socket; what came before it may still be read.
    broken: bool,
    written_total: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shutdown {
    No,
    /// When all is written.
    Wanted,
    Done,
}

/// What was read and has been left where it lies, with what is unread in it.
struct Lying {
    buffer: Buffer,
    from: usize,
    to: usize,
}

enum Buffer {
    /// The core's own, for who copies it away within this turn.
    Shown(Vec<u8>),
    /// A block.
    Kept(BytesMut),
}

impl Default for Lying {
    fn default() -> Self {
        Self {
            buffer: Buffer::Shown(vec![0; SCRATCH_BYTES]),
            from: 0,
            to: 0,
        }
    }
}

impl Lying {
    fn is_kept(&self) -> bool {
        matches!(self.buffer, Buffer::Kept(_))
    }

    fn unread(&self) -> &[u8] {
        let bytes = match &self.buffer {
            Buffer::Shown(scratch) => &scratch[..],
            Buffer::Kept(block) => &block[..],
        };
        &bytes[self.from..self.to]
    }
}

impl fmt::Debug for Lying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lying")
            .field("kept", &self.is_kept())
            .field("bytes", &(self.to - self.from))
            .finish_non_exhaustive()
    }
}

impl<S: Socket> Transport<S> {
    /// The transport of a socket that is connected already.
    pub fn accepted(socket: S, key: Key, staging: &Rc<Staging>) -> Self {
        // An accepted socket may have bytes already: the first read is tried without an event.
        Self::new(socket, key, staging, true)
    }

    /// The transport of a socket that is connecting.
    pub fn connecting(socket: S, key: Key, staging: &Rc<Staging>) -> Self {
        Self::new(socket, key, staging, false)
    }

    fn new(socket: S, key: Key, staging: &Rc<Staging>, connected: bool) -> Self {
        Self {
            socket,
            key,
            staging: Rc::clone(staging),
            unread: BytesMut::new(),
            lying: None,
            taken: 0,
            readable: connected,
            read_closed: false,
            ended: false,
            budget: TURN_BYTES_MAX,
            turn: staging.turn.get(),
            steps: 0,
            queues: connected,
            waits: false,
            unwritten: None,
            writable: connected,
            connected,
            dirty: false,
            refused: false,
            shutdown: Shutdown::No,
            failed: None,
            deaf: false,
            broken: false,
            written_total: 0,
        }
    }

    /// The socket, to register it.
    pub fn socket_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    /// The kernel has said so much. Marks only; no work is done here.
    pub fn handle_event(&mut self, event: &crate::net::driver::Event) {
        self.readable |= event.readable || event.read_closed || event.error;
        self.read_closed |= event.read_closed || event.error;
        self.writable |= event.writable || event.error;
        self.broken |= event.error;
        if !self.connected && (event.writable || event.error || event.read_closed) {
            match self.socket.connected() {
                Ok(connected) => self.connected = connected,
                Err(error) => self.fail(error.kind()),
            }
        }
        if self.connected && self.unwritten() > 0 && event.writable {
            self.mark_dirty();
        }
    }

    /// There may be something to read though no event has said so: the next fill tries.
    pub fn suspect(&mut self) {
        self.readable = true;
    }

    /// Reads once, if there is anything to read and fewer than `unread_max` bytes are waiting to be taken.
    pub fn fill(&mut self, unread_max: usize) -> Filled {
        self.keep_unread();
        if let Some(found) = self.may_not_fill(unread_max) {
            return found;
        }
        let mut block = self.staging.block.borrow_mut();
        let asked = BLOCK_BYTES
            .min(unread_max - self.unread.len())
            .min(self.budget as usize);
        let read = read_once(&mut self.socket, &mut block[..asked]);
        if let Ok(n) = read {
            if n >= KEPT_BYTES_MIN
                && self.unread.is_empty()
                && let Some(other) = self.staging.another_block()
            {
                let block = mem::replace(&mut *block, other);
                self.lying = Some(Box::new(Lying {
                    buffer: Buffer::Kept(block),
                    from: 0,
                    to: n,
                }));
            } else {
                self.unread.extend_from_slice(&block[..n]);
            }
        }
        drop(block);
        self.note_read(read, asked)
    }

    /// Reads once, if there is anything to read, and shows it where it lies, for whoever copies it away within this turn.
    /// When it has what it can use it says so with [`Transport::keep_unread`]; nobody else can read so cheaply until then.
    pub fn fill_shown(&mut self) -> Filled {
        if self.unread().len() >= SCRATCH_BYTES / 2 {
            return self.fill(usize::MAX);
        }
        if let Some(found) = self.may_not_fill(usize::MAX) {
            return found;
        }
        if self.lying.is_none() {
            let mut lying = self.staging.take_scratch();
            if let Buffer::Shown(scratch) = &mut lying.buffer {
                scratch[..self.unread.len()].copy_from_slice(&self.unread);
            }
            (lying.from, lying.to) = (0, self.unread.len());
            self.unread = BytesMut::new();
            self.taken = 0;
            self.lying = Some(lying);
        }
        let Some(Lying {
            buffer: Buffer::Shown(scratch),
            from,
            to,
        }) = self.lying.as_deref_mut()
        else {
            // It lies in a block.
            return self.fill(usize::MAX);
        };
        if *from > 0 {
            scratch.copy_within(*from..*to, 0);
            (*from, *to) = (0, *to - *from);
        }
        let asked = (scratch.len() - *to).min(self.budget as usize);
        let read = read_once(&mut self.socket, &mut scratch[*to..*to + asked]);
        if let Ok(n) = read {
            *to += n;
        }
        self.note_read(read, asked)
    }

    /// What is unread where it lies will wait: it moves to `unread`, and the core has its own buffer again.
    pub fn keep_unread(&mut self) {
        let Some(mut lying) = self.lying.take() else {
            return;
        };
        match &mut lying.buffer {
            Buffer::Kept(block) => {
                self.unread = mem::take(block);
                self.unread.truncate(lying.to);
                self.unread.advance(lying.from);
                self.taken = u16::try_from(lying.from).unwrap_or(u16::MAX);
                self.give_back();
            }
            Buffer::Shown(_) => {
                self.unread.extend_from_slice(lying.unread());
                *self.staging.scratch.borrow_mut() = Some(lying);
            }
        }
    }

    fn note_taken(&mut self, n: usize) {
        self.taken = self
            .taken
            .saturating_add(u16::try_from(n).unwrap_or(u16::MAX));
    }

    /// Why nothing can be read now.
    fn may_not_fill(&mut self, unread_max: usize) -> Option<Filled> {
        if self.ended || self.failed.is_some() {
            return Some(Filled::Ended);
        }
        if self.unread.len() >= unread_max {
            return Some(Filled::Full);
        }
        if !self.readable || !self.connected {
            return Some(Filled::Dry);
        }
        self.begin_turn();
        if self.budget == 0 || self.waits {
            self.note_starved();
            return Some(Filled::Starved);
        }
        None
    }

    fn begin_turn(&mut self) {
        if self.turn != self.staging.turn.get() {
            self.turn = self.staging.turn.get();
            self.budget = TURN_BYTES_MAX;
            self.steps = 0;
        }
    }

    /// It goes on in another turn: a backend in the next one, a client when it is called.
    fn note_starved(&mut self) {
        if !self.queues {
            Staging::push(&self.staging.starved, self.key);
        } else if !mem::replace(&mut self.waits, true) {
            self.staging.line.borrow_mut().push_back(self.key);
        }
    }

    /// It was called from the line.
    pub fn leave_line(&mut self) {
        self.waits = false;
    }

    /// Whether it stands in the line.
    pub fn is_in_line(&self) -> bool {
        self.waits
    }

    /// Takes so many steps on what is unread; `false`: not in this turn any more, and whoever asks is woken when he is called.
    /// Those who come new have at least [`TURN_STEPS_MIN`].
    pub fn take_steps(&mut self, steps: u16) -> bool {
        self.begin_turn();
        let of_all = self.staging.steps.get();
        let most = if of_all > 0 {
            self.staging.portion.get()
        } else {
            TURN_STEPS_MIN
        };
        if self.waits || self.steps >= most {
            self.note_starved();
            return false;
        }
        self.steps += steps;
        self.staging.steps.set(of_all.saturating_sub(steps.into()));
        true
    }

    fn note_read(&mut self, read: io::Result<usize>, asked: usize) -> Filled {
        match read {
            Ok(0) => {
                self.ended = true;
                self.read_closed = true;
                Filled::Ended
            }
            Ok(n) => {
                self.budget -= n as u32;
                if n < asked && !self.read_closed {
                    self.readable = false;
                }
                Filled::Bytes(n)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Filled::Dry
            }
            Err(error) => {
                self.fail(error.kind());
                Filled::Ended
            }
        }
    }

    /// Forgets the first `n` unread bytes.
    pub fn consume(&mut self, n: usize) {
        if let Some(lying) = &mut self.lying {
            lying.from += n;
            debug_assert!(lying.from <= lying.to, "consumed more than was unread");
            if lying.is_kept() && lying.to - lying.from < KEPT_BYTES_MIN {
                self.keep_unread();
            }
            return;
        }
        self.unread.advance(n);
        self.note_taken(n);
        self.give_back();
    }

    /// Takes the first `n` unread bytes.
    pub fn split(&mut self, n: usize) -> Bytes {
        if n >= KEPT_BYTES_MIN
            && let Some(Lying { buffer, from, to }) = self.lying.as_deref_mut()
            && let Buffer::Kept(block) = buffer
        {
            let (start, end) = (*from, *from + n);
            self.unread.extend_from_slice(&block[end..*to]);
            let block = mem::take(block).freeze();
            self.lying = None;
            let taken = block.slice(start..end);
            self.staging.lend(block);
            return taken;
        }
        self.keep_unread();
        let taken = match n == self.unread.len() {
            true => mem::take(&mut self.unread),
            false => self.unread.split_to(n),
        };
        self.note_taken(n);
        self.give_back();
        taken.freeze()
    }

    /// Takes the first `n` unread bytes for whoever keeps them long: a few bytes do not hold the whole of a large read.
    pub fn split_to_keep(&mut self, n: usize) -> Bytes {
        if self.unread().len() - n < SHARED_BYTES_MAX {
            return self.split(n);
        }
        let kept = Bytes::copy_from_slice(&self.unread()[..n]);
        self.consume(n);
        kept
    }

    /// What is unread will wait: it does not hold the whole of the buffer that what stood before it came in.
    pub fn compact(&mut self) {
        if self.taken as usize >= SHARED_BYTES_MAX {
            self.unread = BytesMut::from(&self.unread[..]);
            self.taken = 0;
        }
    }

    /// The unread bytes, for a sieve that removes some of them.
    pub fn unread_mut(&mut self) -> &mut BytesMut {
        self.keep_unread();
        &mut self.unread
    }

    /// Bytes that were read and not yet taken.
    pub fn unread(&self) -> &[u8] {
        match &self.lying {
            Some(lying) => lying.unread(),
            None => &self.unread,
        }
    }

    fn give_back(&mut self) {
        if self.unread.is_empty() {
            // An idle connection holds no buffer.
            self.unread = BytesMut::new();
            self.taken = 0;
        }
    }

    /// Stages a copy of `bytes`.
    pub fn write(&mut self, bytes: &[u8]) {
        if let Some(unwritten) = self.stage() {
            unwritten.copy(bytes);
        }
    }

    /// Stages `bytes`, from where they lie if they are many.
    pub fn write_bytes(&mut self, bytes: Bytes) {
        if let Some(unwritten) = self.stage() {
            unwritten.push(bytes);
        }
    }

    /// Stages what `print` prints.
    pub fn write_with(&mut self, print: impl FnOnce(&mut BytesMut)) {
        if let Some(unwritten) = self.stage() {
            unwritten.print(print);
        }
    }

    /// An empty list, to gather in it what will be written. It goes back with [`Transport::keep_list`].
    pub fn take_list(&self) -> Vec<Bytes> {
        self.staging.list.take()
    }

    /// Takes such a list back, empty.
    pub fn keep_list(&self, list: Vec<Bytes>) {
        if list.is_empty() && list.capacity() <= LIST_PIECES_MAX {
            self.staging.list.set(list);
        }
    }

    /// Where to stage. `None`: to a peer that hears nothing any more everything may be said, and nothing is kept.
    fn stage(&mut self) -> Option<&mut Unwritten> {
        if self.deaf || self.failed.is_some() {
            return None;
        }
        self.mark_dirty();
        let staging = &self.staging;
        let unwritten = self.unwritten.get_or_insert_with(|| staging.take_spare());
        Some(unwritten)
    }

    /// How many bytes are staged.
    pub fn unwritten(&self) -> usize {
        self.unwritten
            .as_ref()
            .map_or(0, |unwritten| unwritten.bytes)
    }

    /// How many bytes the kernel has taken, in all.
    pub fn written_total(&self) -> u64 {
        self.written_total
    }

    /// How many bytes were ever staged that may still arrive, or have.
    pub fn staged_total(&self) -> u64 {
        self.written_total + self.unwritten() as u64
    }

    /// Says that we will send no more, when all is written.
    pub fn shutdown_write(&mut self) {
        if self.shutdown == Shutdown::No {
            self.shutdown = Shutdown::Wanted;
            self.mark_dirty();
        }
    }

    /// Notes that somebody waits for fewer bytes to be staged. [`Transport::take_relieved`] tells when that is so.
    pub fn note_refused(&mut self) {
        self.refused = true;
    }

    /// Whether somebody who was refused may try again: less than `high_water` is staged now.
    pub fn take_relieved(&mut self, high_water: usize) -> bool {
        self.refused
            && (self.unwritten() < high_water || self.failed.is_some() || self.deaf)
            && mem::take(&mut self.refused)
    }

    /// Writes what is staged, as far as the kernel takes it. The turn calls it before it sleeps.
    pub fn flush(&mut self, now: Instant) {
        self.dirty = false;
        if self.unwritten() == 0 {
            self.unwritten = None;
        }
        while self.connected
            && self.writable
            && self.failed.is_none()
            && let Some(unwritten) = &mut self.unwritten
        {
            let (written, asked) = unwritten.write(&mut self.socket);
            match written {
                Ok(0) => self.hear_only(),
                Ok(n) => {
                    unwritten.advance(n);
                    if unwritten.bytes == 0 {
                        // An idle connection holds no buffer.
                        if let Some(written) = self.unwritten.take() {
                            self.staging.keep_spare(written);
                        }
                    }
                    self.written_total += n as u64;
                    if n < asked {
                        self.writable = false;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(_) => self.hear_only(),
            }
        }
        match &mut self.unwritten {
            None => {
                if self.shutdown == Shutdown::Wanted && self.connected && self.failed.is_none() {
                    self.shutdown = Shutdown::Done;
                    let _ = self.socket.shutdown_write();
                }
            }
            Some(unwritten) => {
                let stall = Stall::new(now, self.written_total);
                unwritten.stall.get_or_insert(stall);
            }
        }
    }

    /// Whether the peer has not taken all that was said to it when the socket was last asked.
    pub fn is_kept_waiting(&self) -> bool {
        let unwritten = self.unwritten.as_ref();
        unwritten.is_some_and(|unwritten| unwritten.stall.is_some())
    }

    /// When the peer will have kept bytes waiting for `limit`, counted from its last `progress` bytes. `None`: nothing waits.
    pub fn stalled_at(&mut self, now: Instant, limit: Duration, progress: u64) -> Option<Instant> {
        let stall = self.unwritten.as_mut()?.stall.as_mut()?;
        stall.note(now, self.written_total, progress);
        stall.until(limit)
    }

    /// All is written that was staged, and the shutdown if one was wanted; or it never will be.
    pub fn is_flushed(&self) -> bool {
        self.failed.is_some()
            || self.deaf
            || (self.unwritten() == 0 && self.shutdown != Shutdown::Wanted)
    }

    /// The peer's end has been read: nothing more will come.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The peer will send no more; unread bytes may be left.
    pub fn read_closed(&self) -> bool {
        self.read_closed
    }

    /// Gives the socket up: its peer keeps us waiting. From now on it has failed with `TimedOut`.
    pub fn give_up(&mut self) {
        self.fail(io::ErrorKind::TimedOut);
    }

    /// Why the socket failed, if it did.
    pub fn failed(&self) -> Option<io::ErrorKind> {
        self.failed
    }

    /// The peer has reset the connection, or the way to it is gone: nothing that we write will arrive.
    pub fn is_broken(&self) -> bool {
        self.broken || self.deaf || self.failed.is_some()
    }

    /// Whether the socket is connected. A connecting one that fails says so in [`Transport::failed`].
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Whether somebody waits for less to be staged.
    pub fn has_refused(&self) -> bool {
        self.refused
    }

    /// Whether there may be something to read that no event will announce (for the law of Pending's watchdog).
    pub fn may_read(&self) -> bool {
        self.readable && self.connected && !self.ended && self.failed.is_none()
    }

    /// A write has failed. An answer that came before may lie in the kernel: it is read to its end (invariant 11).
    fn hear_only(&mut self) {
        self.deaf = true;
        self.unwritten = None;
        self.readable = true;
        self.read_closed = true;
    }

    fn fail(&mut self, kind: io::ErrorKind) {
        self.failed = Some(kind);
        self.unwritten = None;
        // Whoever waits for room must learn that there will be none.
        self.mark_dirty();
    }

    fn mark_dirty(&mut self) {
        if !self.dirty {
            self.dirty = true;
            Staging::push(&self.staging.dirty, self.key);
        }
    }
}

fn read_once<S: Socket>(socket: &mut S, into: &mut [u8]) -> io::Result<usize> {
    trip(Place::Read);
    let read = loop {
        match socket.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    trip(Place::HasRead);
    read
}

/// The write-behind: small pieces copied together, large ones kept where they are.
#[derive(Debug, Default)]
struct Unwritten {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    bytes: usize,
    /// Since when, and how many bytes ago, the peer has been keeping bytes waiting.
    stall: Option<Stall>,
}

impl Unwritten {
    fn copy(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len();
        let room = self.tail.capacity() - self.tail.len();
        if self.tail.capacity() >= SPARE_BYTES_MAX && bytes.len() > room {
            // A buffer that has grown so far is filled and followed by another: to grow on, it would be copied.
            let (fitting, rest) = bytes.split_at(room);
            self.tail.extend_from_slice(fitting);
            let next = BytesMut::with_capacity(SPARE_BYTES_MAX.max(rest.len()));
            let full = mem::replace(&mut self.tail, next).freeze();
            if !full.is_empty() {
                self.pieces.push_back(full);
            }
            bytes = rest;
        }
        self.tail.extend_from_slice(bytes);
    }

    fn print(&mut self, print: impl FnOnce(&mut BytesMut)) {
        let before = self.tail.len();
        print(&mut self.tail);
        self.bytes += self.tail.len() - before;
    }

    fn push(&mut self, bytes: Bytes) {
        if bytes.len() < COPY_BYTES_MAX {
            return self.copy(&bytes);
        }
        self.bytes += bytes.len();
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
        self.pieces.push_back(bytes);
    }

    /// Writes once: what came of it, and how many bytes were offered.
    fn write<S: Socket>(&self, socket: &mut S) -> (io::Result<usize>, usize) {
        trip(Place::Write);
        let written = if self.pieces.is_empty() {
            let asked = self.tail.len();
            (socket.write_vectored(&[IoSlice::new(&self.tail)]), asked)
        } else {
            let mut offered = [IoSlice::new(&[]); PIECES_MAX];
            let (mut count, mut asked) = (0, 0);
            let tail = Some(&self.tail[..]).filter(|tail| !tail.is_empty());
            let all = self.pieces.iter().map(|piece| &piece[..]).chain(tail);
            for (place, piece) in offered.iter_mut().zip(all) {
                *place = IoSlice::new(piece);
                count += 1;
                asked += piece.len();
            }
            (socket.write_vectored(&offered[..count]), asked)
        };
        trip(Place::Written);
        written
    }

    fn advance(&mut self, mut n: usize) {
        self.bytes -= n;
        while n > 0 {
            let Some(first) = self.pieces.front_mut() else {
                if n == self.tail.len() {
                    // It keeps its room, which advancing would not.
                    self.tail.clear();
                } else {
                    self.tail.advance(n);
                }
                break;
            };
            let step = n.min(first.len());
            first.advance(step);
            n -= step;
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a buffer from which so many large pieces were written.
    fn written(pieces: usize) -> Box<Unwritten> {
        let mut unwritten = Staging::default().take_spare();
        for _ in 0..pieces {
            unwritten.push(Bytes::from_static(&[0; COPY_BYTES_MAX]));
        }
        unwritten.advance(pieces * COPY_BYTES_MAX);
        unwritten
    }

    /// A peer that sends as much as is asked for.
    struct Talker;

    impl Socket for Talker {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            into.fill(7);
            Ok(into.len())
        }

        fn write_vectored(&mut self, _from: &[IoSlice<'_>]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn shutdown_write(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn connected(&mut self) -> io::Result<bool> {
            Ok(true)
        }
    }

    fn talker(staging: &Rc<Staging>) -> Transport<Talker> {
        let key = Key {
            index: 0,
            generation: 0,
        };
        Transport::accepted(Talker, key, staging)
    }

    #[test]
    fn most_of_a_block_is_taken_as_it_was_read_and_the_block_is_read_into_again() {
        let staging = Rc::new(Staging::default());
        let mut transport = talker(&staging);
        let mut at = Vec::new();
        for _ in 0..3 {
            staging.next_turn();
            assert_eq!(transport.fill(BLOCK_BYTES), Filled::Bytes(BLOCK_BYTES));
            let lies = transport.unread().as_ptr();
            // A head does not share it, and what is behind the body moves out.
            let head = transport.split_to_keep(100);
            assert_ne!(head.as_ptr(), lies);
            let body = transport.split(KEPT_BYTES_MIN);
            assert_eq!(body.as_ptr(), lies.wrapping_add(100));
            assert_eq!(body, [7; KEPT_BYTES_MIN][..]);
            assert_eq!(transport.unread().len(), BLOCK_BYTES - KEPT_BYTES_MIN - 100);
            let rest = transport.unread().len();
            transport.consume(rest);
            at.push(lies);
        }
        assert_eq!(at[2], at[0], "its body is gone");
        assert_eq!(staging.lent.borrow().len(), 1);
    }

    #[test]
    fn little_of_a_block_does_not_hold_it_and_so_many_are_held_and_no_more() {
        let staging = Rc::new(Staging::default());
        let mut transport = talker(&staging);
        let mut little = Vec::new();
        let mut most = Vec::new();
        for _ in 0..3 * LENT_MAX {
            staging.next_turn();
            assert_eq!(
                transport.fill(KEPT_BYTES_MIN - 1),
                Filled::Bytes(KEPT_BYTES_MIN - 1)
            );
            let lent = staging.lent.borrow().len();
            little.push(transport.split(KEPT_BYTES_MIN - 1));
            assert_eq!(staging.lent.borrow().len(), lent);
            assert_eq!(
                transport.fill(KEPT_BYTES_MIN),
                Filled::Bytes(KEPT_BYTES_MIN)
            );
            most.push(transport.split(KEPT_BYTES_MIN));
        }
        assert_eq!(staging.lent.borrow().len(), LENT_MAX);
        assert!(
            most.iter()
                .chain(&little)
                .all(|bytes| bytes.iter().all(|&byte| byte == 7))
        );
    }

    #[test]
    fn a_buffer_that_gave_pieces_away_is_whole_again_when_they_are_written() {
        let staging = Staging::default();
        let mut unwritten = staging.take_spare();
        for _ in 0..3 {
            unwritten.copy(&[1; 600]);
            unwritten.push(Bytes::from_static(&[0; COPY_BYTES_MAX]));
        }
        unwritten.advance(unwritten.bytes);
        staging.keep_spare(unwritten);
        assert_eq!(staging.spare.borrow().len(), 1);
    }

    #[test]
    fn a_buffer_is_kept_for_the_next_one_but_not_with_what_a_burst_has_made_it_grow_by() {
        for (pieces, kept) in [(0, 1), (1, 1), (PIECES_MAX, 1), (10 * LIST_PIECES_MAX, 0)] {
            let staging = Staging::default();
            staging.keep_spare(written(pieces));
            assert_eq!(staging.spare.borrow().len(), kept, "{pieces} pieces");
        }
        let staging = Staging::default();
        let mut grown = written(0);
        grown.copy(&[0; 2 * SPARE_BYTES_MAX]);
        grown.advance(2 * SPARE_BYTES_MAX);
        staging.keep_spare(grown);
        assert!(staging.spare.borrow().is_empty());
        (0..2 * SPARE_MAX).for_each(|_| staging.keep_spare(written(1)));
        assert_eq!(staging.spare.borrow().len(), SPARE_MAX);
    }
}
