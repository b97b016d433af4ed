//! Finds events by their types and tags.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::log::event::StoredEvent;
use crate::log::query::{Criterion, Query};
use crate::log::tag::Tag;

/// For each type and each tag the events that have it, as ascending indices into the log.
#[derive(Debug, Default)]
pub(super) struct Index {
    types: HashMap<Arc<str>, Vec<usize>, RandomState>,
    tags: HashMap<Tag, Vec<usize>, RandomState>,
}

impl Index {
    /// Adds the event at this index, which is above all others.
    pub(super) fn push(&mut self, event: &StoredEvent, at: usize) {
        if let Some(events) = self.types.get_mut(event.name()) {
            events.push(at);
        } else {
            self.types.insert(event.name().into(), vec![at]);
        }
        for tag in &event.tags {
            self.tags.entry(tag.clone()).or_default().push(at);
        }
    }

    /// The events in this range that may match a query, in ascending order: no other does.
    pub(super) fn candidates<'a>(&'a self, query: &'a Query, range: &Range<usize>) -> Candidates<'a> {
        let mut lists = Vec::new();
        for criterion in query.criteria() {
            self.add(criterion, range, &mut lists);
        }
        Candidates::Listed(lists)
    }

    /// Adds the shortest lists that hold everything that meets a criterion.
    fn add<'a>(&'a self, criterion: &'a Criterion, range: &Range<usize>, lists: &mut Vec<List<'a>>) {
        let within = |events: Option<&'a Vec<usize>>| {
            let events = events.map(Vec::as_slice).unwrap_or_default();
            let start = events.partition_point(|at| *at < range.start);
            let end = events.partition_point(|at| *at < range.end);
            events.get(start..end).unwrap_or_default()
        };
        let of_tags = criterion.tags.iter().map(|tag| within(self.tags.get(tag)));
        let of_tag = of_tags.min_by_key(|events| events.len());
        let of_types: Vec<_> = criterion.types.iter().map(|name| within(self.types.get(name))).collect();
        let in_types: usize = of_types.iter().map(|events| events.len()).sum();
        match of_tag {
            Some(events) if of_types.is_empty() || events.len() <= in_types => lists.push(List::Some(events)),
            None if of_types.is_empty() => lists.push(List::All(range.clone())),
            _ => lists.extend(of_types.into_iter().map(List::Some)),
        }
    }
}

/// Events that may be wanted, as indices into the log; from the front in ascending order, from the back in descending
/// order.
#[derive(Debug)]
pub(super) enum Candidates<'a> {
    All(Range<usize>),
    Listed(Vec<List<'a>>),
}

/// One of several lists of events, each in ascending order.
#[derive(Debug)]
pub(super) enum List<'a> {
    All(Range<usize>),
    Some(&'a [usize]),
}

impl List<'_> {
    fn first(&self) -> Option<usize> {
        match self {
            Self::All(range) => (!range.is_empty()).then_some(range.start),
            Self::Some(events) => events.first().copied(),
        }
    }

    fn last(&self) -> Option<usize> {
        match self {
            Self::All(range) => range.end.checked_sub(1).filter(|last| range.contains(last)),
            Self::Some(events) => events.last().copied(),
        }
    }

    fn drop_first(&mut self, at: usize) {
        if self.first() == Some(at) {
            match self {
                Self::All(range) => range.start += 1,
                Self::Some(events) => *events = events.get(1..).unwrap_or_default(),
            }
        }
    }

    fn drop_last(&mut self, at: usize) {
        if self.last() == Some(at) {
            match self {
                Self::All(range) => range.end -= 1,
                Self::Some(events) => *events = events.split_last().map_or(&[], |(_, rest)| rest),
            }
        }
    }
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let lists = match self {
            Self::All(range) => return range.next(),
            Self::Listed(lists) => lists,
        };
        let at = lists.iter().filter_map(List::first).min()?;
        // An event that is on several lists is found once.
        for list in lists {
            list.drop_first(at);
        }
        Some(at)
    }
}

impl DoubleEndedIterator for Candidates<'_> {
    fn next_back(&mut self) -> Option<usize> {
        let lists = match self {
            Self::All(range) => return range.next_back(),
            Self::Listed(lists) => lists,
        };
        let at = lists.iter().filter_map(List::last).max()?;
        for list in lists {
            list.drop_last(at);
        }
        Some(at)
    }
}
