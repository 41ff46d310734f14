//! Deadlines: an indexed binary heap that knows where each entry stands, so that a call that ends takes its deadline with it.
//!
//! Owns order and cancellation; never reads a clock and never knows what a deadline means.

use std::time::{Duration, Instant};

use crate::net::slots::{Key, Slots};

/// Room for so many deadlines is never given back.
const KEPT: usize = 64;
/// Room is given back when so little of it is used: one place in so many.
const SPARSE: usize = 8;

/// A deadline that was set. Stale ones are harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(Key);

/// That none is set: no place has this generation.
const NO_TIMER: TimerId = TimerId(Key {
    index: u32::MAX,
    generation: u32::MAX,
});

/// Deadlines of one core, each with the key of whoever asked for it.
#[derive(Debug)]
pub struct Timers<K> {
    /// What all times are counted from; there since the first one.
    base: Option<Instant>,
    heap: Vec<Entry<K>>,
    /// Where in the heap each timer stands.
    places: Slots<u32>,
}

/// Every idle connection has one: it is as small as it can be.
#[derive(Debug)]
struct Entry<K> {
    /// Nanoseconds from the base; what is centuries away stands at the last of them.
    at: i64,
    /// Its place among the places.
    id: u32,
    key: K,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self {
            base: None,
            heap: Vec::new(),
            places: Slots::default(),
        }
    }
}

impl<K: Copy> Timers<K> {
    /// Makes `timer` fire for `key` at `at`, wherever it stood before; `None` cancels it.
    pub fn set(&mut self, timer: &mut Option<TimerId>, at: Option<Instant>, key: K) {
        let place = timer.and_then(|TimerId(id)| self.places.get(id).map(|&place| place as usize));
        match (place, at) {
            (Some(place), Some(at)) => {
                let at = self.count(at);
                if let Some(entry) = self.heap.get_mut(place) {
                    entry.at = at;
                    entry.key = key;
                }
                let place = self.up(place);
                self.down(place);
            }
            (Some(_), None) => {
                self.cancel(timer);
            }
            (None, Some(at)) => {
                let at = self.count(at);
                let place = self.heap.len();
                let id = self.places.insert_with(|_| place as u32);
                self.heap.push(Entry {
                    at,
                    id: id.index,
                    key,
                });
                self.up(place);
                *timer = Some(TimerId(id));
            }
            (None, None) => *timer = None,
        }
    }

    /// Takes the deadline out, if it has not fired.
    pub fn cancel(&mut self, timer: &mut Option<TimerId>) {
        if let Some(TimerId(id)) = timer.take()
            && let Some(place) = self.places.remove(id)
        {
            self.remove_at(place as usize);
        }
    }

    /// Takes out every deadline of those whom `keep` does not know.
    pub fn retain(&mut self, keep: impl Fn(K) -> bool) {
        let stale = self.heap.iter().filter(|entry| !keep(entry.key));
        let stale: Vec<u32> = stale.map(|entry| entry.id).collect();
        for id in stale {
            if let Some(place) = self.places.remove_at(id) {
                self.remove_at(place as usize);
            }
        }
    }

    /// The next deadline.
    pub fn next(&self) -> Option<Instant> {
        self.time(self.heap.first()?.at)
    }

    /// When this one fires, if it is set.
    fn at(&self, TimerId(id): TimerId) -> Option<Instant> {
        let &place = self.places.get(id)?;
        self.time(self.heap.get(place as usize)?.at)
    }

    /// Takes out one deadline that is not after `now`.
    pub fn expired(&mut self, now: Instant) -> Option<K> {
        let first = self.heap.first()?;
        if self.time(first.at)? > now {
            return None;
        }
        let (id, key) = (first.id, first.key);
        self.places.remove_at(id);
        self.remove_at(0);
        Some(key)
    }

    /// How many are set.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// That time as it is kept.
    fn count(&mut self, at: Instant) -> i64 {
        let base = *self.base.get_or_insert(at);
        let nanoseconds = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
        match at.checked_duration_since(base) {
            Some(after) => nanoseconds(after),
            None => -nanoseconds(base.duration_since(at)),
        }
    }

    /// A time that was kept.
    fn time(&self, at: i64) -> Option<Instant> {
        let span = Duration::from_nanos(at.unsigned_abs());
        match at < 0 {
            true => self.base?.checked_sub(span),
            false => self.base?.checked_add(span),
        }
    }

    fn remove_at(&mut self, place: usize) {
        self.heap.swap_remove(place);
        // As the places do, so that a burst leaves nothing behind.
        if self.heap.len() * SPARSE < self.heap.capacity() && self.heap.capacity() > KEPT {
            self.heap.shrink_to(self.heap.len() * 2);
        }
        if place < self.heap.len() {
            self.note_place(place);
            let place = self.up(place);
            self.down(place);
        }
    }

    fn up(&mut self, mut place: usize) -> usize {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent].at <= self.heap[place].at {
                break;
            }
            self.heap.swap(parent, place);
            self.note_place(place);
            place = parent;
        }
        self.note_place(place);
        place
    }

    fn down(&mut self, mut place: usize) {
        loop {
            let left = 2 * place + 1;
            if left >= self.heap.len() {
                break;
            }
            let right = left + 1;
            let child = if right < self.heap.len() && self.heap[right].at < self.heap[left].at {
                right
            } else {
                left
            };
            if self.heap[place].at <= self.heap[child].at {
                break;
            }
            self.heap.swap(place, child);
            self.note_place(place);
            place = child;
        }
        self.note_place(place);
    }

    fn note_place(&mut self, place: usize) {
        if let Some(stored) = self.places.get_mut_at(self.heap[place].id) {
            *stored = place as u32;
        }
    }
}

/// One owner's timer, which costs nothing to postpone: it fires at the earlier time, and its owner, seeing that it is early,
/// arms it again.
#[derive(Debug)]
pub struct Alarm(TimerId);

impl Default for Alarm {
    fn default() -> Self {
        Self(NO_TIMER)
    }
}

impl Alarm {
    /// Sees to it that `key` is told no later than at `wanted`; it may be told earlier.
    pub fn arm<K: Copy>(&mut self, timers: &mut Timers<K>, wanted: Option<Instant>, key: K) {
        if let Some(wanted) = wanted
            && timers.at(self.0).is_none_or(|at| wanted < at)
        {
            let mut timer = Some(self.0);
            timers.set(&mut timer, Some(wanted), key);
            self.0 = timer.unwrap_or(NO_TIMER);
        }
    }

    /// It has fired.
    pub fn fired(&mut self) {
        *self = Self::default();
    }

    /// It will not be needed any more.
    pub fn cancel<K: Copy>(&mut self, timers: &mut Timers<K>) {
        timers.cancel(&mut Some(self.0));
        *self = Self::default();
    }

    /// Whether it will fire.
    pub fn is_set(&self) -> bool {
        self.0 != NO_TIMER
    }

    /// When it will fire.
    pub fn at<K: Copy>(&self, timers: &Timers<K>) -> Option<Instant> {
        timers.at(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn deadlines_fire_in_order_and_cancelled_ones_never() {
        let mut rng = fastrand::Rng::with_seed(7);
        let start = Instant::now();
        for _ in 0..50 {
            let mut timers = Timers::default();
            let mut model: Vec<Option<(Instant, Option<TimerId>)>> = Vec::new();
            for step in 0..400usize {
                let at = start + Duration::from_micros(rng.u64(0..10_000));
                match rng.u32(0..4) {
                    0 | 1 => {
                        let mut id = None;
                        timers.set(&mut id, Some(at), step);
                        model.push(Some((at, id)));
                    }
                    2 if !model.is_empty() => {
                        model.push(None);
                        let index = rng.usize(0..model.len());
                        if let Some((time, id)) = model[index].as_mut() {
                            *time = at;
                            timers.set(id, Some(at), index);
                        }
                    }
                    _ => {
                        model.push(None);
                        let index = rng.usize(0..model.len());
                        if let Some((_, mut id)) = model[index].take() {
                            timers.cancel(&mut id);
                            timers.cancel(&mut id);
                        }
                    }
                }
            }
            let mut left: Vec<_> = model.iter().flatten().map(|(at, _)| *at).collect();
            left.sort();
            assert_eq!(timers.len(), left.len());
            for at in left {
                assert_eq!(timers.next(), Some(at));
                assert_eq!(timers.expired(at - Duration::from_nanos(1)), None);
                let key = timers.expired(at).expect("one is due");
                assert_eq!(model[key].as_ref().map(|(at, _)| *at), Some(at));
            }
            assert!(timers.is_empty() && timers.places.is_empty());
        }
    }

    #[test]
    fn times_before_the_first_one_and_centuries_behind_it_are_kept() {
        const YEAR: Duration = Duration::from_secs(31_557_600);
        let first = Instant::now() + Duration::from_secs(10);
        let earlier = first - Duration::from_nanos(5_000_000_001);
        let mut timers = Timers::default();
        for (at, key) in [(first, 1), (earlier, 0), (first + 10_000 * YEAR, 2)] {
            timers.set(&mut None, Some(at), key);
        }
        for (at, key) in [(earlier, 0), (first, 1)] {
            assert_eq!(timers.next(), Some(at));
            assert_eq!(timers.expired(at - Duration::from_nanos(1)), None);
            assert_eq!(timers.expired(at), Some(key));
        }
        assert_eq!(timers.expired(first + 100 * YEAR), None);
        assert!(timers.next().is_some_and(|at| at > first + 100 * YEAR));
    }

    #[test]
    fn d_09_a_hundred_thousand_deadlines_fire_in_the_first_turn_after_them_and_never_before() {
        const MANY: usize = 100_000;
        const TURN: Duration = Duration::from_millis(1);
        let mut rng = fastrand::Rng::with_seed(9);
        let start = Instant::now();
        let mut timers = Timers::default();
        let mut ids = Vec::new();
        let mut at = Vec::new();
        for key in 0..MANY {
            let time = start + Duration::from_micros(rng.u64(0..10_000_000));
            let mut id = None;
            timers.set(&mut id, Some(time), key);
            ids.push(id);
            at.push(Some(time));
        }
        // Some are put off, and some are never to fire.
        for _ in 0..MANY / 2 {
            let key = rng.usize(..MANY);
            if rng.bool() {
                let time = start + Duration::from_micros(rng.u64(0..10_000_000));
                timers.set(&mut ids[key], Some(time), key);
                at[key] = Some(time);
            } else {
                timers.cancel(&mut ids[key]);
                at[key] = None;
            }
        }
        assert_eq!(timers.len(), at.iter().flatten().count());
        let mut now = start;
        let mut latest = Duration::ZERO;
        while let Some(next) = timers.next() {
            // A core sleeps until then, and each of its turns takes a while.
            now = next.max(now + TURN);
            while let Some(key) = timers.expired(now) {
                let time = at[key].take().expect("once, and not if it was cancelled");
                latest = latest.max(now.checked_duration_since(time).expect("never early"));
            }
        }
        assert!(at.iter().all(Option::is_none), "one has not fired");
        assert!(latest <= TURN, "{latest:?}");
    }
}
