//! The pages of a read, in order; the next ones are fetched while one is being processed.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::engine::Engine;
use super::error::StoreError;
use super::event::StoredEvent;
use super::position::Position;
use super::read::{Direction, PAGE_SCAN, Page, Read};

/// Maximum number of pages in flight. Two are read on two connections at once; a third in the queue keeps both busy
/// until the consumer wakes up. A scan of 1,000,000 events takes half as long as with one page after the other.
const AHEAD: usize = 3;

/// The pages of one read, up to the head seen by its first page.
///
/// A page is bounded by events and bytes, so where the next one starts is known only when it arrives. To have several
/// in flight anyway, forward reads without a limit guess from the pages that arrived how far a page reaches (the stride),
/// and request parts of that length. Backward reads, and reads with a limit, fetch one page at a time.
///
/// Example: a filter passes every second event of `@all`, and a page holds 1,000 events.
///
/// * The first page reaches position 2,000. It was full before every place was used, so the stride is an eighth less:
///   1,750. Three parts are requested: 2,001 to 3,750, 3,751 to 5,500 and 5,501 to 7,250.
/// * If the first part already holds 1,000 events at 3,600, then 3,601 to 3,750 is requested and returned before the
///   others, and the stride becomes 1,400.
/// * If it ends at 3,750 with at most 500 events (and half the bytes), there was room for twice as much. The stride
///   becomes 3,500; it never exceeds [`PAGE_SCAN`].
///
/// Whatever the guess, the result is the pages of one read: in order, nothing missing, nothing twice.
pub(super) struct Pages {
    engine: Arc<dyn Engine>,
    /// What every page requests, except for its part.
    read: Read,
    /// Whether no event may be missing, because they are folded into a state.
    whole: bool,
    /// How many more events may be returned.
    left: usize,
    /// The head seen by the first page, once that has arrived.
    head: Option<u64>,
    /// How many places a page is expected to cover, once that can be guessed.
    stride: Option<u64>,
    /// What has not been requested yet.
    rest: Option<Part>,
    /// What has been requested, in order.
    asked: VecDeque<Asked>,
}

/// A part of the read; both bounds are exclusive.
#[derive(Debug, Clone, Copy)]
struct Part {
    after: u64,
    before: Option<u64>,
}

struct Asked {
    part: Part,
    page: Fetch,
}

enum Fetch {
    /// In flight.
    Coming(Pin<Box<dyn Future<Output = Result<Page, StoreError>> + Send>>),
    /// Already arrived.
    Come(Result<Page, StoreError>),
}

impl Pages {
    pub(super) fn new(engine: Arc<dyn Engine>, read: Read, limit: Option<usize>) -> Self {
        let left = limit.unwrap_or(usize::MAX);
        let rest = (left > 0).then_some(Part { after: read.after, before: read.before });
        let mut pages =
            Self { engine, read, whole: false, left, head: None, stride: None, rest, asked: VecDeque::new() };
        pages.bound_by_limit();
        pages
    }

    /// The pages after a first page that was fetched in another way.
    pub(super) fn following(engine: Arc<dyn Engine>, read: Read, page: &Page) -> Self {
        let mut pages = Self::new(engine, read, None);
        if let Some(part) = pages.rest.take() {
            pages.rest = pages.arrived(part, page);
        }
        pages
    }

    /// Requires that no event is missing; only for a forward read of one stream without a filter.
    pub(super) fn whole(&mut self) {
        self.whole = true;
    }

    /// The head seen by the first page, if `@all` is read and the page has arrived.
    pub(super) fn head_of_all(&self) -> Option<Position> {
        self.head.filter(|_| self.read.stream.is_all()).map(Position::new)
    }

    /// Whether all pages have been taken.
    pub(super) fn is_done(&self) -> bool {
        self.rest.is_none() && self.asked.is_empty()
    }

    /// Requests as many pages as may be in flight, without waiting for them.
    pub(super) fn ask(&mut self, context: &mut Context<'_>) {
        while self.asked.len() < AHEAD
            && let Some(part) = self.next_part()
        {
            let asked = self.begin(part, !self.asked.is_empty(), context);
            self.asked.push_back(asked);
        }
    }

    /// Returns the next page; [`None`] at the end and after an error.
    pub(super) fn poll_page(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Page, StoreError>>> {
        self.ask(context);
        let Some(Asked { part, page }) = self.asked.front_mut() else { return Poll::Ready(None) };
        let part = *part;
        if let Fetch::Coming(coming) = page {
            *page = Fetch::Come(ready!(coming.as_mut().poll(context)));
        }
        let Some(Asked { page: Fetch::Come(page), .. }) = self.asked.pop_front() else { return Poll::Ready(None) };
        let page = page.and_then(|page| self.checked(part, page));
        if let Ok(page) = &page {
            let last = self.is_done();
            match self.arrived(part, page) {
                Some(left_over) if last => self.rest = Some(left_over),
                Some(left_over) => {
                    let asked = self.begin(left_over, false, context);
                    self.asked.push_front(asked);
                }
                None => {}
            }
        }
        if page.is_err() || self.left == 0 {
            self.rest = None;
            self.asked.clear();
        }
        Poll::Ready(Some(page))
    }

    /// The next part to request: as long as a page is expected to reach, or all that is left.
    fn next_part(&mut self) -> Option<Part> {
        let rest = self.rest.take()?;
        let (Some(stride), Some(before)) = (self.stride, rest.before) else { return Some(rest) };
        let middle = rest.after.saturating_add(stride);
        if middle.saturating_add(1) >= before {
            return Some(rest);
        }
        self.rest = Some(Part { after: middle, before: Some(before) });
        Some(Part { after: rest.after, before: Some(middle + 1) })
    }

    fn begin(&self, part: Part, ahead: bool, context: &mut Context<'_>) -> Asked {
        let engine = Arc::clone(&self.engine);
        let read = Read { after: part.after, before: part.before, ahead, ..self.read.clone() };
        let mut page: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async move { engine.read(read).await });
        // Polled once, so that the request is in flight.
        let page = match page.as_mut().poll(context) {
            Poll::Ready(come) => Fetch::Come(come),
            Poll::Pending => Fetch::Coming(page),
        };
        Asked { part, page }
    }

    fn checked(&self, part: Part, page: Page) -> Result<Page, StoreError> {
        page.check(&self.read, part.after, part.before)?;
        if self.whole {
            page.check_whole(&self.read.stream, part.after, part.before)?;
        }
        Ok(page)
    }

    /// Learns from a page, and returns the rest of its part if the page could not hold it all.
    fn arrived(&mut self, mut part: Part, page: &Page) -> Option<Part> {
        if self.head.is_none() {
            // The read ends at the head seen by its first page.
            self.head = Some(page.head);
            let end = page.head.saturating_add(1);
            part.before = Some(part.before.map_or(end, |before| before.min(end)));
        }
        let endless = self.left == usize::MAX;
        if !endless {
            self.left = self.left.saturating_sub(page.events.len());
            self.bound_by_limit();
        }
        if self.read.direction == Direction::Backward {
            return (!page.end).then_some(Part { before: Some(page.scanned), ..part });
        }
        let reached = page.scanned.saturating_sub(part.after);
        if !endless || page.events.is_empty() {
            // A page without an upper bound skips a gap of any length.
            self.stride = None;
        } else if !page.end {
            let most = PAGE_SCAN as u64;
            self.stride = Some(match reached {
                _ if reached >= most => most,
                // An event at every place, as in most streams: the next page will be just as full.
                _ if reached == page.events.len() as u64 => reached,
                // Where the filter or the bytes set the limit, the next page may not reach quite as far.
                _ => (reached - reached / 8).max(1),
            });
        } else if self.has_room(page) {
            // Otherwise one large event, or a stretch where everything passes the filter, would keep every later page
            // small.
            self.stride = self.stride.map(|stride| stride.max(reached.saturating_mul(2)).min(PAGE_SCAN as u64));
        }
        (!page.end).then_some(Part { after: page.scanned, ..part })
    }

    /// Whether the page could have held twice as much.
    fn has_room(&self, page: &Page) -> bool {
        let bytes: usize = page.events.iter().map(StoredEvent::bytes).sum();
        page.events.len() <= self.read.events / 2 && bytes <= self.read.bytes / 2
    }

    fn bound_by_limit(&mut self) {
        self.read.events = self.read.events.min(self.left);
    }
}
