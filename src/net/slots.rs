//! A slab whose keys carry a generation, so that a late event for a dead tenant finds nobody (invariant: stale keys are
//! harmless). Owns the numbering; never knows what it stores.

use slab::Slab;

/// Where something lives, and which tenant of that place is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The place.
    pub index: u32,
    /// Which tenant. Never `u32::MAX`, which [`crate::net::Token`] keeps for itself.
    pub generation: u32,
}

/// Fewer places than this are never given back.
const PLACES_KEPT: usize = 64;
/// Places are given back when so few of them are taken: one in so many.
const SPARSE: usize = 8;

/// A slab of `T` by generational key.
///
/// It gives back what a burst has made it grow by, as far as nobody sits in a late place: what lies idle in it is not there for
/// others, and thousands of calls are megabytes.
#[derive(Debug)]
pub struct Slots<T> {
    slab: Slab<(u32, T)>,
    generation: u32,
    /// With so few tenants it is next looked whether places can be given back. Halved by each look, so that a tenant of a late
    /// place does not have all places looked through at every removal.
    sparse_at: usize,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            slab: Slab::new(),
            generation: 0,
            sparse_at: 0,
        }
    }
}

impl<T> Slots<T> {
    /// Puts in what `make` makes of its future key.
    pub fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        self.generation = if self.generation >= u32::MAX - 1 {
            0
        } else {
            self.generation + 1
        };
        let entry = self.slab.vacant_entry();
        let index = u32::try_from(entry.key()).expect("a core holds fewer than 2^32 of anything");
        let key = Key {
            index,
            generation: self.generation,
        };
        entry.insert((self.generation, make(key)));
        self.sparse_at = self.sparse_at.max(self.slab.len() / SPARSE);
        key
    }

    /// Takes the tenant out, if the key still means it.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let (_, tenant) = self.slab.remove(key.index as usize);
        if self.slab.len() <= self.sparse_at && self.slab.capacity() > PLACES_KEPT {
            self.sparse_at = self.slab.len() / 2;
            self.slab.shrink_to_fit();
        }
        Some(tenant)
    }

    /// Takes out whoever has that place.
    pub fn remove_at(&mut self, index: u32) -> Option<T> {
        let &(generation, _) = self.slab.get(index as usize)?;
        self.remove(Key { index, generation })
    }

    /// Whoever has that place.
    pub fn get_mut_at(&mut self, index: u32) -> Option<&mut T> {
        let (_, tenant) = self.slab.get_mut(index as usize)?;
        Some(tenant)
    }

    /// The tenant, if the key still means it.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slab.get_mut(key.index as usize) {
            Some((generation, tenant)) if *generation == key.generation => Some(tenant),
            _ => None,
        }
    }

    /// The tenant, if the key still means it.
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.slab.get(key.index as usize) {
            Some((generation, tenant)) if *generation == key.generation => Some(tenant),
            _ => None,
        }
    }

    /// All tenants with their keys, in order of place.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slab.iter().map(|(index, (generation, tenant))| {
            (
                Key {
                    index: index as u32,
                    generation: *generation,
                },
                tenant,
            )
        })
    }

    /// All tenants with their keys, in order of place.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.slab.iter_mut().map(|(index, (generation, tenant))| {
            (
                Key {
                    index: index as u32,
                    generation: *generation,
                },
                tenant,
            )
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_leaves_no_places_behind_and_nobody_moves() {
        let mut slots = Slots::default();
        let first = slots.insert_with(|_| 0);
        let burst: Vec<Key> = (1..10_000).map(|n| slots.insert_with(|_| n)).collect();
        assert!(slots.slab.capacity() >= 10_000);
        for key in &burst {
            assert!(slots.remove(*key).is_some());
        }
        assert!(slots.slab.capacity() <= PLACES_KEPT);
        assert_eq!(slots.get(first), Some(&0));
        assert!(burst.iter().all(|&key| slots.get(key).is_none()));

        // Somebody in the last place keeps it, and is asked a few times only.
        let burst: Vec<Key> = (1..10_000).map(|n| slots.insert_with(|_| n)).collect();
        let (last, others) = burst.split_last().expect("many");
        for key in others {
            assert!(slots.remove(*key).is_some());
        }
        assert_eq!(slots.get(*last), Some(&9_999));
        assert!(slots.slab.capacity() >= 10_000);
        assert_eq!(slots.remove(*last), Some(9_999));
        assert!(slots.slab.capacity() <= PLACES_KEPT);
        let next = slots.insert_with(|_| 1);
        assert_eq!((slots.get(next), slots.len()), (Some(&1), 2));
    }

    #[test]
    fn a_stale_key_finds_nobody() {
        let mut slots = Slots::default();
        let first = slots.insert_with(|_| "first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert_with(|_| "second");
        assert_eq!(first.index, second.index, "the place is used again");
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
    }
}
