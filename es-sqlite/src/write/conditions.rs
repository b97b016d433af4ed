//! Tags and conditions, inside the write transaction.

use es_framework::engine::Read;
use es_framework::{AppendCondition, Criterion, Filter, Position, Query, StoreError, StreamId, Tag, Tags};
use tokio_rusqlite::rusqlite::types::Value;

use crate::read::page;
use crate::tables::postings::{self, TermEnd};
use crate::tables::schema::{self, Layout};
use crate::tables::tags;
use crate::write::append::Transaction;
use crate::write::memory::{TagHead, Unmatched};

impl Transaction<'_> {
    /// Returns the position of the first event that makes a condition fail.
    ///
    /// A criterion has no match after a position if one of its tags has none, and the writer remembers where the events
    /// with a tag end. Only what that leaves open is looked for in the log, exactly as a reader would.
    pub(super) fn first_match(&mut self, condition: &AppendCondition) -> Result<Option<Position>, StoreError> {
        let AppendCondition { query, after, .. } = condition;
        let (head, _) = self.head()?;
        if *after >= head {
            return Ok(None);
        }
        let (mut open, mut from) = (Query::new(), head);
        for criterion in query.criteria() {
            if let Some(unseen) = self.unseen(criterion, *after, head)? {
                open = open.or(criterion.clone());
                from = from.min(unseen);
            }
        }
        if open.criteria().is_empty() {
            return Ok(None);
        }
        let found = self.search(&open, from)?;
        if found.is_none() {
            for criterion in open.criteria() {
                let before = self.memory.unmatched.get(criterion).filter(|known| known.upto >= *after);
                let after = before.map_or(*after, |known| known.after.min(*after));
                self.memory.unmatched.insert(criterion.clone(), Unmatched { after, upto: head });
            }
        }
        Ok(found)
    }

    /// The position after which a criterion may have a match; [`None`] if it has none after `after`.
    fn unseen(
        &mut self,
        criterion: &Criterion,
        after: Position,
        head: Position,
    ) -> Result<Option<Position>, StoreError> {
        for tag in &criterion.tags {
            if self.tag_head(tag)?.end.position <= after {
                return Ok(None);
            }
        }
        // What was looked for and not found: a criterion without tags is usually asked for again, a little later.
        let upto = match self.memory.unmatched.get(criterion) {
            Some(known) if known.after <= after => known.upto.max(after),
            _ => after,
        };
        Ok((upto < head).then_some(upto))
    }

    /// Searches the log, events of this transaction included.
    fn search(&mut self, query: &Query, after: Position) -> Result<Option<Position>, StoreError> {
        let connection = self.written()?;
        let mut read = Read::new(StreamId::all());
        read.filter = Filter::new().query(query);
        read.events = 1;
        read.after = after.get();
        loop {
            let page = page::read(connection, &mut self.memory.names, self.memory.store, &read)?;
            if let Some(event) = page.events.first() {
                return Ok(Some(event.position));
            }
            if page.end {
                return Ok(None);
            }
            read.after = page.scanned;
        }
    }

    /// Adds the postings of the event at a position, and returns the list of its tags for its row. In a store without
    /// tags there is nothing to add.
    pub(super) fn post(&mut self, event_type: i64, tags: &Tags, position: Position) -> Result<Value, StoreError> {
        if self.memory.names.layout == Layout::Plain {
            if tags.is_empty() {
                return Ok(Value::Null);
            }
            let ends = schema::add_tags(self.written()?)?;
            self.memory.names.layout = Layout::Tagged;
            self.memory.type_ends.clear();
            self.memory.type_ends.insert(event_type, TermEnd::default());
            for (event_type, end) in ends {
                self.memory.type_ends.insert(event_type, end);
            }
        }
        self.post_type(event_type, position)?;
        let mut numbers = Vec::with_capacity(tags.len());
        for tag in tags {
            let mut head = self.tag_head(tag)?;
            if head.number == 0 {
                head.number = tags::add(self.connection, tag, self.memory.last_tag)?;
                self.memory.last_tag = Some(head.number);
            }
            head.end = TermEnd { position, count: head.end.count + 1 };
            match self.memory.tags.get(tag) {
                Some(known) => *known = head,
                None => self.memory.tags.insert(tag.clone(), head),
            }
            self.memory.pending.push_posting(head.number, head.end);
            numbers.push(head.number);
        }
        Ok(tags::list(&numbers))
    }

    /// Adds a posting for the first event of a type in a block.
    fn post_type(&mut self, event_type: i64, position: Position) -> Result<(), StoreError> {
        let block = postings::block(position.get());
        if self.memory.last_block == Some((event_type, block)) {
            return Ok(());
        }
        let term = postings::term_of_type(event_type);
        let known = self.memory.type_ends.get(&event_type).copied();
        let end = if let Some(end) = known {
            end
        } else {
            let connection = self.written()?;
            postings::end(connection, &mut self.memory.names, term)?
        };
        let end = if end.count > 0 && postings::block(end.position.get()) == block {
            end
        } else {
            let end = TermEnd { position, count: end.count + 1 };
            self.memory.pending.push_posting(term, end);
            end
        };
        self.memory.type_ends.insert(event_type, end);
        self.memory.last_block = Some((event_type, block));
        Ok(())
    }

    fn tag_head(&mut self, tag: &Tag) -> Result<TagHead, StoreError> {
        if self.memory.names.layout == Layout::Plain {
            return Ok(TagHead::default());
        }
        if let Some(head) = self.memory.tags.get(tag) {
            return Ok(*head);
        }
        let head = match tags::number(self.connection, tag)? {
            Some(number) => {
                let connection = self.written()?;
                TagHead { number, end: postings::end(connection, &mut self.memory.names, number)? }
            }
            None => TagHead::default(),
        };
        self.memory.tags.insert(tag.clone(), head);
        Ok(head)
    }
}
