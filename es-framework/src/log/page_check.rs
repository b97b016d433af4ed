//! What is checked on every page, whichever engine returned it.

use super::error::StoreError;
use super::name::StreamId;
use super::position::{Position, Version};
use super::read::{Direction, Page, Read};

impl Page {
    /// Checks that the page is a consistent answer to `read` with these bounds: its events lie between them, in order;
    /// a page that is not the end made progress; one that is the end reached the head it reports.
    ///
    /// # Errors
    ///
    /// [`StoreError::Internal`]: an engine that returns such a page has a bug.
    pub(super) fn check(&self, read: &Read, after: u64, before: Option<u64>) -> Result<(), StoreError> {
        let defect = |what: String| Err(StoreError::Internal { source: what.into() });
        let forward = read.direction == Direction::Forward;
        let all = read.stream.is_all();
        let mut last = None;
        for event in &self.events {
            let place = if all { event.position.get() } else { event.version.get() };
            let in_order = last.is_none_or(|last| if forward { place > last } else { place < last });
            let scanned = if forward { place <= self.scanned } else { place >= self.scanned };
            let between = place > after && before.is_none_or(|before| place < before);
            if !in_order || !scanned || !between || !all && event.stream != read.stream {
                return defect(format!("it returned an event where it does not belong, at {place} of {}", read.stream));
            }
            last = Some(place);
        }
        let progress = if forward { self.scanned > after } else { before.is_none_or(|before| self.scanned < before) };
        if !progress && !self.end {
            return defect(format!(
                "it returned a page that ends where it begins, at {}, and claims that there is more",
                self.scanned
            ));
        }
        let reached =
            if forward { self.scanned >= last_place(self, before) } else { self.scanned <= after.saturating_add(1) };
        if self.end && !reached && after < self.head {
            return defect(format!(
                "it returned a page that claims to be the end at {}, before its head at {}",
                self.scanned, self.head
            ));
        }
        Ok(())
    }

    /// Checks that a page of an unfiltered forward read holds every event of its stream after a version, so that a
    /// state at that version can be brought up to date with it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if an event is missing, [`StoreError::Truncated`] if it was removed.
    pub(crate) fn check_whole(&self, stream: &StreamId, after: u64, before: Option<u64>) -> Result<(), StoreError> {
        let after = Version::new(after);
        if let Some(head) = self.stream.filter(|head| !head.reaches_back_to(after)) {
            return Err(StoreError::Truncated { stream: stream.clone(), floor: head.floor, after });
        }
        let missing = |version: Version, position: Option<Position>| {
            Err(StoreError::Corrupt { position, reason: format!("version {version} of stream {stream} is missing") })
        };
        let mut version = after;
        for event in &self.events {
            if event.version != version.next() {
                return missing(version.next(), Some(event.position));
            }
            version = event.version;
        }
        let reached = if self.end { last_place(self, before) } else { self.scanned };
        if version.get() < reached { missing(version.next(), None) } else { Ok(()) }
    }
}

/// The last place that a forward read with this bound can reach.
fn last_place(page: &Page, before: Option<u64>) -> u64 {
    before.map_or(page.head, |before| before.saturating_sub(1).min(page.head))
}
