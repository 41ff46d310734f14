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

/// A slab of `T` by generational key.
#[derive(Debug)]
pub struct Slots<T> {
    slab: Slab<(u32, T)>,
    generation: u32,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            slab: Slab::new(),
            generation: 0,
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
        key
    }

    /// Takes the tenant out, if the key still means it.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        Some(self.slab.remove(key.index as usize).1)
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
