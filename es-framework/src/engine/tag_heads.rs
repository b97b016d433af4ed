//! A writer's memory of the newest event of each tag.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::log::{AppendCondition, Position, Tag};

/// A bounded memory of where the newest event of each tag is, which tells a writer that a condition holds without a
/// query.
///
/// For each tag it knows a *bound*: no event with this tag lies above it. A criterion has no match after a position if
/// one of its tags has a bound at or below it, so a condition whose criteria all have such a tag holds. The memory never
/// says that a condition fails: then, and when it does not know, the engine asks its index.
///
/// Bounds may be too high, and then cost a query; none may be too low, or a conflict would be missed:
///
/// * A tag that was forgotten, or was never seen, is bounded by the newest position that was ever forgotten. Tags are
///   forgotten in the order in which they were written, thousands of positions back, so a decision on recent reads is
///   nearly always answered.
/// * Events that others wrote are not recorded, and after a rollback positions are given out again. A transaction
///   therefore begins with [`Self::begin`] and ends with [`Self::commit`]: if the log does not end where the last
///   committed one left it, everything is forgotten, and events up to its end may have any tag.
///
/// ```
/// use es_framework::engine::TagHeads;
/// use es_framework::{AppendCondition, Criterion, Position, Tag};
///
/// let (ann, bob) = (Tag::of("user", "ann")?, Tag::of("user", "bob")?);
/// let no_ann_after = |position| AppendCondition::new(Criterion::tags([&ann]), Position::new(position));
///
/// let mut heads = TagHeads::new(1_000);
/// heads.begin(Position::new(70));
/// assert!(!heads.rules_out(&no_ann_after(69)), "ask the index: others may have written her event");
/// assert!(heads.rules_out(&no_ann_after(70)));
/// heads.record(Position::new(71), &[bob]);
/// assert!(heads.rules_out(&no_ann_after(70)));
/// heads.record(Position::new(72), &[ann.clone()]);
/// assert!(!heads.rules_out(&no_ann_after(71)), "ask the index: it finds the event at 72");
/// heads.commit();
/// # Ok::<(), es_framework::InvalidName>(())
/// ```
#[derive(Debug)]
pub struct TagHeads {
    /// The tags written last, and those written before them; a tag in both is newest in `young`.
    young: HashMap<Tag, Position, RandomState>,
    old: HashMap<Tag, Position, RandomState>,
    limit: usize,
    /// No position in `old` is above this one.
    old_upto: Position,
    /// No event of a tag that is not in a map lies above this one.
    others_upto: Position,
    /// The position of the newest event.
    head: Position,
    /// Whether a transaction was begun and not committed.
    open: bool,
}

impl TagHeads {
    /// Creates a memory that knows nothing yet, and remembers between `limit` and twice `limit` tags.
    pub fn new(limit: usize) -> Self {
        Self {
            young: HashMap::default(),
            old: HashMap::default(),
            limit: limit.max(1),
            old_upto: Position::MAX,
            others_upto: Position::MAX,
            head: Position::MAX,
            open: true,
        }
    }

    /// Begins a transaction on a log that ends at `head`.
    ///
    /// Everything is forgotten if the last transaction was not committed or others have written since.
    pub fn begin(&mut self, head: Position) {
        if self.open || head != self.head {
            self.young.clear();
            self.old.clear();
            (self.head, self.old_upto, self.others_upto) = (head, head, head);
        }
        self.open = true;
    }

    /// Ends a transaction that was committed. After a rollback, do not call it.
    pub fn commit(&mut self) {
        self.open = false;
    }

    /// Records the event that was written at this position, the new end of the log. Every event must be recorded, also
    /// one without tags.
    pub fn record(&mut self, position: Position, tags: &[Tag]) {
        self.head = position;
        for tag in tags {
            // Without a clone for a tag that is known.
            if let Some(newest) = self.young.get_mut(tag) {
                *newest = position;
                continue;
            }
            if self.young.len() >= self.limit {
                self.others_upto = self.old_upto;
                self.old = std::mem::take(&mut self.young);
                self.old_upto = position;
            }
            self.young.insert(tag.clone(), position);
        }
    }

    /// Whether it is certain that the condition holds. If not, ask the index.
    pub fn rules_out(&self, condition: &AppendCondition) -> bool {
        let AppendCondition { query, after, .. } = condition;
        *after >= self.head || query.criteria().iter().all(|one| one.tags.iter().any(|tag| self.bound(tag) <= *after))
    }

    /// No event with this tag lies above the position that is returned.
    fn bound(&self, tag: &Tag) -> Position {
        let newest = self.young.get(tag).or_else(|| self.old.get(tag));
        newest.copied().unwrap_or(self.others_upto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Criterion, Query};

    fn tag(n: u64) -> Tag {
        Tag::of("n", n).unwrap()
    }

    fn unless(tags: &[u64], after: u64) -> AppendCondition {
        AppendCondition::new(Criterion::tags(tags.iter().map(|n| tag(*n))), Position::new(after))
    }

    fn at(position: u64) -> Position {
        Position::new(position)
    }

    #[test]
    fn nothing_is_ruled_out_before_a_transaction_begins() {
        let heads = TagHeads::new(2);
        assert!(!heads.rules_out(&unless(&[1], 1_000)));
    }

    #[test]
    fn a_rollback_and_others_events_are_not_mistaken_for_the_own_ones() {
        let mut heads = TagHeads::new(10);
        heads.begin(at(4));
        heads.record(at(5), &[tag(1)]);
        // Rolled back; another process then writes an event with tag 2 at that position.
        heads.begin(at(5));
        assert!(!heads.rules_out(&unless(&[2], 4)));
        heads.record(at(6), &[tag(1)]);
        heads.commit();
        heads.begin(at(6));
        assert!(heads.rules_out(&unless(&[2], 5)) && !heads.rules_out(&unless(&[1], 5)));
        heads.commit();
        // Another process writes an event with tag 2.
        heads.begin(at(7));
        assert!(!heads.rules_out(&unless(&[2], 6)) && heads.rules_out(&unless(&[2], 7)));
    }

    #[test]
    fn each_criterion_is_ruled_out_by_one_of_its_tags() {
        let mut heads = TagHeads::new(10);
        heads.begin(at(0));
        heads.record(at(1), &[tag(1)]);
        heads.record(at(2), &[tag(2)]);
        heads.record(at(3), &[]);
        assert!(heads.rules_out(&unless(&[1, 2], 1)) && !heads.rules_out(&unless(&[1, 2], 0)));
        let any = |after| AppendCondition::new(Query::all(), at(after));
        assert!(!heads.rules_out(&any(2)) && heads.rules_out(&any(3)));
        let either = |after| {
            AppendCondition::new(Query::new().or(Criterion::tags([tag(1)])).or(Criterion::tags([tag(2)])), at(after))
        };
        assert!(!heads.rules_out(&either(1)) && heads.rules_out(&either(2)));
        assert!(heads.rules_out(&AppendCondition::new(Query::new(), at(0))));
    }

    /// Whatever was forgotten, rolled back or written by others: a condition that is ruled out holds.
    #[test]
    fn what_is_ruled_out_holds() {
        const TAGS: u64 = 17;
        for limit in [1, 2, 3, 7, 100] {
            let mut heads = TagHeads::new(limit);
            // The log as it is, and as it is in the open transaction: for each position the tags of its event.
            let mut committed: Vec<[u64; 2]> = (0..500).map(|n| [n % TAGS, (n + 1) % TAGS]).collect();
            let mut seed = 1_u64;
            let mut random = |below: u64| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) % below
            };
            let mut ruled_out = 0;
            for _ in 0..500 {
                // Others write: now and then, and exactly as many as a rollback took away.
                for _ in 0..[0, 0, 0, 1, 4][usize::try_from(random(5)).unwrap()] {
                    committed.push([random(TAGS), random(TAGS)]);
                }
                let mut log = committed.clone();
                heads.begin(at(log.len() as u64));
                for _ in 0..4 {
                    let tags = [random(TAGS), random(TAGS)];
                    log.push(tags);
                    let head = log.len() as u64;
                    heads.record(at(head), &tags.map(tag));
                    assert!(heads.young.len() <= limit && heads.old.len() <= limit);
                    for n in 0..TAGS {
                        for after in head.saturating_sub(20)..=head {
                            if heads.rules_out(&unless(&[n], after)) {
                                ruled_out += 1;
                                let later = &log[usize::try_from(after).unwrap()..];
                                assert!(!later.iter().any(|tags| tags.contains(&n)), "{limit} {n} {after}");
                            }
                        }
                    }
                }
                if random(4) > 0 {
                    heads.commit();
                    committed = log;
                }
            }
            assert!(ruled_out > 500 * 4 * TAGS, "{ruled_out} with {limit}");
        }
    }
}
