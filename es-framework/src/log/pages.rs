//! The pages of a read in order, the next ones on their way while one is dealt with.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::engine::Engine;
use super::error::StoreError;
use super::event::StoredEvent;
use super::read::{Direction, PAGE_SCAN, Page, Read};

/// The pages on their way at most. Two are read by two connections at the same time, and with a third in the queue neither
/// waits until the consumer was woken: a scan of 1,000,000 events takes half as long as with one page after the other.
const AHEAD: usize = 3;

/// The pages of one read, up to the head that its first page saw.
///
/// Where a page begins is known only when the one before has come. So several are on their way only forward, without a
/// limit, and once a page has told how far one reaches: the next is asked for that far, and what it could not hold is asked for
/// in between. Where there was room for twice as much, the next are asked for twice as far. Whatever the guess, the pages
/// are those of one read.
pub(super) struct Pages {
    engine: Arc<dyn Engine>,
    /// What every page is asked for, but for its part.
    read: Read,
    /// Whether every event has to come, for a state that they are folded into.
    whole: bool,
    /// How many events may come.
    left: usize,
    /// Whether no page has come yet.
    first: bool,
    /// How far a page is expected to reach.
    stride: Option<u64>,
    /// What was not asked for.
    rest: Option<Part>,
    /// What was, in order.
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
    /// On its way.
    Coming(Pin<Box<dyn Future<Output = Result<Page, StoreError>> + Send>>),
    /// It has come already.
    Come(Result<Page, StoreError>),
}

impl Pages {
    pub(super) fn new(engine: Arc<dyn Engine>, read: Read, limit: Option<usize>) -> Self {
        let left = limit.unwrap_or(usize::MAX);
        let rest = (left > 0).then_some(Part { after: read.after, before: read.before });
        let mut pages =
            Self { engine, read, whole: false, left, first: true, stride: None, rest, asked: VecDeque::new() };
        pages.bound_by_limit();
        pages
    }

    /// The pages after one that has come by another way.
    pub(super) fn following(engine: Arc<dyn Engine>, read: Read, page: &Page) -> Self {
        let mut pages = Self::new(engine, read, None);
        if let Some(part) = pages.rest.take() {
            pages.rest = pages.arrived(part, page);
        }
        pages
    }

    /// Requires that no event is missing; of a read forward, without a filter, of one stream.
    pub(super) fn whole(&mut self) {
        self.whole = true;
    }

    /// Whether all pages have been taken.
    pub(super) fn is_done(&self) -> bool {
        self.rest.is_none() && self.asked.is_empty()
    }

    /// Asks for as many pages as may be on their way, and does not wait for them.
    pub(super) fn ask(&mut self, context: &mut Context<'_>) {
        while self.asked.len() < AHEAD
            && let Some(part) = self.next_part()
        {
            let asked = self.begin(part, !self.asked.is_empty(), context);
            self.asked.push_back(asked);
        }
    }

    /// The next page; [`None`] at the end and after an error.
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

    /// What to ask for next: a part as long as a page is expected to reach, or all that is left.
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
        // Polled once, so that the page is on its way.
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

    /// Learns from a page, and answers what it could not hold of its part.
    fn arrived(&mut self, mut part: Part, page: &Page) -> Option<Part> {
        if self.first {
            // The read ends at the head that its first page saw.
            self.first = false;
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
            // An open page passes over a gap however long.
            self.stride = None;
        } else if !page.end {
            let most = PAGE_SCAN as u64;
            self.stride = Some(match reached {
                _ if reached >= most => most,
                // An event at every place, as in most streams: the next is as full.
                _ if reached == page.events.len() as u64 => reached,
                // Where the filter or the bytes decide, the next may reach a little less far.
                _ => (reached - reached / 8).max(1),
            });
        } else if self.has_room(page) {
            // Else one large event, or a stretch where all pass the filter, would make every page after it small.
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
