//! The ready list and its wakers: to wake is to enqueue, never to run (invariant 2).
//!
//! `h2` calls wakers while it holds its own lock, so a waker that did more than push a key could deadlock. The list sits
//! behind a `Mutex` only because a `Waker` must be `Sync`; it is never contended, for each core has its own.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use crate::tripwire::{Place, trip};

/// Keys that want to be advanced, in the order in which they were woken.
#[derive(Debug)]
pub struct ReadyList<K> {
    keys: Mutex<Vec<K>>,
}

impl<K> Default for ReadyList<K> {
    fn default() -> Self {
        Self {
            keys: Mutex::new(Vec::new()),
        }
    }
}

impl<K> ReadyList<K> {
    fn push(&self, key: K) {
        self.keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(key);
    }

    /// Moves what is ready to the end of `batch`.
    pub fn take(&self, batch: &mut Vec<K>) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        batch.append(&mut keys);
        trim(&mut keys);
    }

    /// Whether nobody is ready.
    pub fn is_empty(&self) -> bool {
        self.keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }
}

/// So many places of an empty list are kept for the next turn.
const LIST_KEPT: usize = 1024;

/// Gives back what a burst has made an empty list grow by. It would be megabytes at most; but lying where the burst lay, it would
/// keep the allocator from giving back what was below it.
pub fn trim<K>(list: &mut Vec<K>) {
    if list.is_empty() && list.capacity() > LIST_KEPT {
        *list = Vec::new();
    }
}

/// How one tenant of a slot is woken. Made once per tenant and kept beside it.
#[derive(Debug)]
pub struct Wakeup<K> {
    note: Arc<Note<K>>,
    waker: Waker,
}

#[derive(Debug)]
struct Note<K> {
    list: Arc<ReadyList<K>>,
    key: K,
    queued: AtomicBool,
}

impl<K: Copy + Send + Sync + 'static> Wakeup<K> {
    /// A wakeup that enqueues `key` on `list`.
    pub fn new(list: &Arc<ReadyList<K>>, key: K) -> Self {
        let note = Arc::new(Note {
            list: Arc::clone(list),
            key,
            queued: AtomicBool::new(false),
        });
        let waker = Waker::from(Arc::clone(&note));
        Self { note, waker }
    }

    /// Enqueues the key, unless it is queued already.
    pub fn wake(&self) {
        self.note.enqueue();
    }

    /// To be called when the key is popped, *before* it is advanced: a wake during the step must enqueue it anew.
    pub fn popped(&self) {
        self.note.queued.store(false, Ordering::Release);
    }

    /// Whether the key is on the list.
    pub fn queued(&self) -> bool {
        self.note.queued.load(Ordering::Acquire)
    }

    /// For `Context::from_waker`.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }
}

/// How one tenant is woken that nobody outside its core wakes: no `Waker`, and so no allocation. Whoever rings it knows whose it
/// is, and where that one is enqueued.
#[derive(Debug, Default)]
pub struct Bell {
    queued: Cell<bool>,
}

impl Bell {
    /// Enqueues `key`, whose bell it is, on `list`, unless it is queued already.
    pub fn wake<K>(&self, list: &ReadyList<K>, key: K) {
        trip(Place::Wake);
        if !self.queued.replace(true) {
            list.push(key);
        }
    }

    /// As [`Wakeup::popped`].
    pub fn popped(&self) {
        self.queued.set(false);
    }

    /// Whether the key is on the list.
    pub fn queued(&self) -> bool {
        self.queued.get()
    }
}

impl<K: Copy + Send + Sync + 'static> Note<K> {
    fn enqueue(&self) {
        trip(Place::Wake);
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.list.push(self.key);
        }
    }
}

impl<K: Copy + Send + Sync + 'static> Wake for Note<K> {
    fn wake(self: Arc<Self>) {
        self.enqueue();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.enqueue();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waking_twice_enqueues_once_and_waking_during_the_step_enqueues_again() {
        let list = Arc::new(ReadyList::default());
        let wakeup = Wakeup::new(&list, 7u32);
        wakeup.wake();
        wakeup.waker().wake_by_ref();
        let mut batch = Vec::new();
        list.take(&mut batch);
        assert_eq!(batch, [7]);
        wakeup.popped();
        wakeup.waker().wake_by_ref();
        list.take(&mut batch);
        assert_eq!(batch, [7, 7]);

        let bell = Bell::default();
        bell.wake(&list, 8);
        bell.wake(&list, 8);
        assert!(bell.queued());
        list.take(&mut batch);
        bell.popped();
        bell.wake(&list, 8);
        list.take(&mut batch);
        assert_eq!(batch, [7, 7, 8, 8]);
    }
}
