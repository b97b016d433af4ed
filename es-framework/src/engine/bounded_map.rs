//! A map that forgets entries that were not used for a while.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;

/// A map of two generations, for caches: when the young generation is full it becomes the old one, and an entry that is
/// not used before the young generation is full again is forgotten.
///
/// It costs no bookkeeping per use, and holds at most twice its limit. The hasher is a fast one, for keys that an
/// attacker does not choose or whose collisions only cost time: the standard library's showed up in the profile of an
/// append, this one hardly does.
#[derive(Debug)]
pub struct BoundedMap<K, V> {
    young: HashMap<K, V, RandomState>,
    old: HashMap<K, V, RandomState>,
    limit: usize,
}

impl<K: Eq + Hash, V> BoundedMap<K, V> {
    /// Creates an empty map that grows to between `limit` and twice `limit` entries.
    pub fn new(limit: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), limit }
    }

    /// Returns the value of a key, and makes it young again.
    pub fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        // One lookup is enough until the limit is reached for the first time.
        if !self.old.is_empty() && !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// Sets the value of a key.
    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.limit && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Whether it knows nothing.
    pub fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_is_forgotten() {
        let mut map = BoundedMap::new(2);
        for key in 0..10 {
            map.insert(key, key);
            assert_eq!(map.get(&0), Some(&mut 0));
        }
        assert_eq!(map.get(&1), None);
        assert!(map.young.len() + map.old.len() <= 4);
    }
}
