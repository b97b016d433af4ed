//! The records of a model in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

/// Records by key, with what is needed to take a transaction back.
#[derive(Debug, Clone, Default)]
pub(super) struct RecordMap {
    records: Arc<BTreeMap<String, Bytes>>,
    /// What the running transaction has replaced, the newest at the end.
    replaced: Vec<(String, Option<Bytes>)>,
}

impl RecordMap {
    pub(super) fn get(&self, key: &str) -> Option<&Bytes> {
        self.records.get(key)
    }

    /// Sets a record, or removes it.
    pub(super) fn set(&mut self, key: &str, value: Option<Bytes>) {
        let records = Arc::make_mut(&mut self.records);
        let before = match value {
            Some(value) => records.insert(key.to_owned(), value),
            None => records.remove(key),
        };
        self.replaced.push((key.to_owned(), before));
    }

    pub(super) fn starting_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a Bytes)> {
        let after = self.records.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        after.take_while(move |(key, _)| key.starts_with(prefix))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Forgets how to take back what was written so far, and returns whether there was anything.
    pub(super) fn commit(&mut self) -> bool {
        let any = !self.replaced.is_empty();
        self.replaced.clear();
        any
    }

    /// Takes back what was written since the last commit.
    pub(super) fn roll_back(&mut self) {
        let records = Arc::make_mut(&mut self.records);
        for (key, before) in self.replaced.drain(..).rev() {
            match before {
                Some(value) => drop(records.insert(key, value)),
                None => drop(records.remove(&key)),
            }
        }
    }

    /// Encodes all records: their number, and for each the length of its key, the key, the length of its value, and the
    /// value; numbers are 32 bits, little-endian.
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        into.put_u32_le(length(self.records.len()));
        for (key, value) in &*self.records {
            for part in [key.as_bytes(), value] {
                into.put_u32_le(length(part.len()));
                into.put_slice(part);
            }
        }
    }

    /// Decodes records, and leaves in `bytes` what follows them; [`None`] if they are damaged.
    pub(super) fn decode(bytes: &mut Bytes) -> Option<Self> {
        let mut records = BTreeMap::new();
        for _ in 0..bytes.try_get_u32_le().ok()? {
            let mut part = || {
                let length = usize::try_from(bytes.try_get_u32_le().ok()?).ok()?;
                (length <= bytes.len()).then(|| bytes.split_to(length))
            };
            let (key, value) = (part()?, part()?);
            // A copy: the bytes of the state would stay in memory with it.
            records.insert(String::from_utf8(key.into()).ok()?, Bytes::copy_from_slice(&value));
        }
        Some(Self { records: Arc::new(records), replaced: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_rolled_back_and_survive_their_encoding() {
        let mut map = RecordMap::default();
        for key in ["b", "a/1", "a/2"] {
            map.set(key, Some(Bytes::from(format!("value of {key}"))));
        }
        map.commit();
        map.set("b", None);
        map.set("a/1", Some(Bytes::from("x")));
        map.set("a/1", None);
        map.set("c", Some(Bytes::from("new")));
        map.roll_back();
        let mut bytes = Vec::new();
        map.encode(&mut bytes);
        bytes.extend(b"state");
        for length in 0..bytes.len() - 5 {
            assert!(RecordMap::decode(&mut Bytes::copy_from_slice(&bytes[..length])).is_none(), "{length}");
        }
        let mut bytes = Bytes::from(bytes);
        let read = RecordMap::decode(&mut bytes).unwrap();
        assert_eq!(&bytes[..], b"state");
        let keys = |map: &RecordMap| map.starting_with("a/").map(|(key, _)| key.clone()).collect::<Vec<_>>();
        assert_eq!((keys(&map), keys(&read)), (vec!["a/1".to_owned(), "a/2".into()], vec!["a/1".into(), "a/2".into()]));
        assert_eq!(read.get("b").unwrap(), "value of b");
        assert!(read.get("c").is_none());
    }
}
