//! The bytes of a store's file, so that a test can damage one of them: https://www.sqlite.org/fileformat.html.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::sql;

/// A file that no one has open.
pub(crate) struct Image {
    path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    size: usize,
    /// The table or index, and `leaf`, `internal` or `overflow`, of each page from 1.
    pages: BTreeMap<usize, (String, String)>,
}

/// An integer of a record: its offset, length and value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) at: usize,
    pub(crate) bytes: usize,
    pub(crate) value: i64,
}

impl Image {
    pub(crate) fn of(path: &Path) -> Self {
        let plain = sql(path);
        let size: i64 = plain.query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap();
        let pages = {
            let mut pages = plain.prepare("SELECT pageno, name, pagetype FROM dbstat ORDER BY name, path").unwrap();
            let row = |row: &es_sqlite::rusqlite::Row<'_>| {
                Ok((usize::try_from(row.get::<_, i64>(0)?).unwrap(), (row.get(1)?, row.get(2)?)))
            };
            pages.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
        };
        drop(plain);
        Self { path: path.to_owned(), bytes: fs::read(path).unwrap(), size: usize::try_from(size).unwrap(), pages }
    }

    /// Writes the image over the file it was read from.
    pub(crate) fn put(&self) {
        fs::write(&self.path, &self.bytes).unwrap();
    }

    /// Returns the table or index that a byte belongs to, and the kind of page it is on; [`None`] for a free page.
    pub(crate) fn place(&self, at: usize) -> Option<(&str, &str)> {
        self.pages.get(&(at / self.size + 1)).map(|(name, kind)| (&name[..], &kind[..]))
    }

    /// Returns the offsets of the pages of this kind in a b-tree.
    pub(crate) fn pages(&self, name: &str, kind: &str) -> Vec<usize> {
        let of = self.pages.iter().filter(|(_, (of, is))| of == name && is == kind);
        of.map(|(page, _)| (page - 1) * self.size).collect()
    }

    fn u16(&self, at: usize) -> usize {
        usize::from(u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    /// Returns the offsets of the cells of a page.
    pub(crate) fn cells(&self, page: usize) -> Vec<usize> {
        let header = if page == 0 { 100 } else { page };
        let pointers = header + if self.bytes[header] & 8 == 0 { 12 } else { 8 };
        (0..self.u16(header + 3)).map(|cell| page + self.u16(pointers + 2 * cell)).collect()
    }

    /// Halves the number of cells that a page declares.
    pub(crate) fn halve(&mut self, page: usize) {
        let half = u16::try_from(self.u16(page + 3) / 2).unwrap();
        self.bytes[page + 3..page + 5].copy_from_slice(&half.to_be_bytes());
    }

    /// Reads a variable-length integer, and returns its length in bytes.
    fn varint(&self, at: usize) -> (i64, usize) {
        let mut value = 0;
        for n in 0..8 {
            let byte = self.bytes[at + n];
            value = value << 7 | i64::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                return (value, n + 1);
            }
        }
        (value << 8 | i64::from(self.bytes[at + 8]), 9)
    }

    /// Returns the row numbers on a leaf of a table, with their offsets.
    pub(crate) fn row_numbers(&self, page: usize) -> Vec<Field> {
        let of_cell = |cell: usize| {
            let at = cell + self.varint(cell).1;
            let (value, bytes) = self.varint(at);
            Field { at, bytes, value }
        };
        self.cells(page).into_iter().map(of_cell).collect()
    }

    /// Returns the integers of an entry on a leaf of an index.
    pub(crate) fn entry(&self, cell: usize) -> Vec<Field> {
        let record = cell + self.varint(cell).1;
        let (header, mut at) = self.varint(record);
        at += record;
        let (end, mut value_at) =
            (record + usize::try_from(header).unwrap(), record + usize::try_from(header).unwrap());
        let mut fields = Vec::new();
        while at < end {
            let (kind, length) = self.varint(at);
            at += length;
            let bytes = match kind {
                1..=4 => usize::try_from(kind).unwrap(),
                5 => 6,
                6 | 7 => 8,
                12.. => usize::try_from((kind - 12) / 2).unwrap(),
                _ => 0,
            };
            let value = match kind {
                8 | 9 => kind - 8,
                1..=6 => self.bytes[value_at..value_at + bytes].iter().fold(0, |sum, byte| sum << 8 | i64::from(*byte)),
                _ => -1,
            };
            fields.push(Field { at: value_at, bytes, value });
            value_at += bytes;
        }
        fields
    }

    /// Finds these bytes on a page of a table or an index.
    pub(crate) fn find(&self, name: &str, wanted: &[u8]) -> usize {
        let found = self
            .bytes
            .windows(wanted.len())
            .enumerate()
            .find(|(at, window)| *window == wanted && self.place(*at).is_some_and(|(of, _)| of == name));
        found.unwrap_or_else(|| panic!("{wanted:?} is not in {name}")).0
    }
}
