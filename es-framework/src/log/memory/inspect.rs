//! What tools can see of an in-memory store.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;

use super::{MemoryEngine, State};
use crate::log::append::CommandRecord;
use crate::log::cell::Cell;
use crate::log::error::StoreError;
use crate::log::event::{EventType, StoredEvent};
use crate::log::id::EventId;
use crate::log::inspect::{CheckpointInfo, Counts, Cursor, Finding, Inspect, List, Listed, SnapshotInfo, Verified};
use crate::log::read::StreamInfo;

#[async_trait]
impl Inspect for MemoryEngine {
    async fn counts(&self) -> Result<Counts, StoreError> {
        let state = self.state()?;
        Ok(Counts {
            head: state.end().0,
            events: state.log.len() as u64,
            streams: state.streams.len() as u64,
            types: state.types().len() as u64,
            commands: state.commands.len() as u64,
            cells: state.cells.values().filter(|(_, value)| value.is_some()).count() as u64,
            snapshots: state.snapshots.len() as u64,
            bytes: 0,
        })
    }

    async fn streams(&self, list: &List) -> Result<Listed<StreamInfo>, StoreError> {
        let state = self.state()?;
        let ordered: Vec<_> =
            if list.newest_first { state.order.iter().rev().collect() } else { state.order.iter().collect() };
        page(
            ordered.into_iter(),
            list,
            |stream| stream.as_str(),
            |stream| StreamInfo::new(stream.clone(), state.head_of(stream)),
        )
    }

    async fn types(&self, list: &List) -> Result<Listed<Arc<EventType>>, StoreError> {
        let state = self.state()?;
        page(state.types().into_iter(), list, |event_type| event_type.name(), Arc::clone)
    }

    async fn cells(&self, list: &List) -> Result<Listed<Cell>, StoreError> {
        let state = self.state()?;
        let after = list.after.as_ref().map_or("", Cursor::as_str);
        let cells = state.cells.iter().filter(|(key, (_, value))| {
            value.is_some() && key.as_str() > after && key.as_str().starts_with(list.prefix.as_str())
        });
        let mut cells =
            cells.map(|(key, (revision, value))| Cell::new(key.clone(), *revision, value.clone().unwrap_or_default()));
        let items: Vec<Cell> = cells.by_ref().take(list.limit).collect();
        let more = cells.next().is_some();
        let next = items.last().filter(|_| more).map(|last| Cursor::new(last.key.as_str()));
        Ok(Listed::new(items, next))
    }

    async fn snapshots(&self, list: &List) -> Result<Listed<SnapshotInfo>, StoreError> {
        let state = self.state()?;
        let mut snapshots: Vec<_> = state.snapshots.values().collect();
        snapshots.sort_by(|a, b| (&a.stream, &a.name).cmp(&(&b.stream, &b.name)));
        page(
            snapshots.into_iter(),
            list,
            |snapshot| snapshot.stream.as_str(),
            |snapshot| {
                let (stream, name) = (snapshot.stream.clone(), snapshot.name.clone());
                let bytes = snapshot.state.len() as u64;
                SnapshotInfo::new(stream, name, snapshot.at, snapshot.fingerprint, snapshot.time, bytes)
            },
        )
    }

    async fn commands(&self, list: &List) -> Result<Listed<CommandRecord>, StoreError> {
        let state = self.state()?;
        let mut commands: Vec<_> = state.commands.values().collect();
        commands.sort_by(|a, b| a.command.key.cmp(&b.command.key));
        page(commands.into_iter(), list, |record| record.command.key.as_str(), CommandRecord::clone)
    }

    async fn checkpoints(&self, _: &List) -> Result<Listed<CheckpointInfo>, StoreError> {
        // Read models have no tables in an in-memory store.
        self.state().map(|_| Listed::new(Vec::new(), None))
    }

    async fn events_with_id(&self, id: &EventId, list: &List) -> Result<Listed<StoredEvent>, StoreError> {
        let state = self.state()?;
        let found = state.log.iter().filter(|event| event.id == *id);
        page(found, &List { prefix: String::new(), ..list.clone() }, |_| "", StoredEvent::clone)
    }

    async fn verify(&self, _: Option<&Cursor>) -> Result<Verified, StoreError> {
        let state = self.state()?;
        let damaged = state.log.iter().filter(|event| event.computed_checksum() != event.checksum);
        let findings = damaged.map(|event| {
            let finding = Finding::new("the checksum does not match").at(event.position);
            finding.of(event.stream.clone(), event.version)
        });
        Ok(Verified { checked: state.log.len() as u64, findings: findings.collect(), next: None })
    }
}

impl State {
    /// The types of all events, each once, in the order in which they were first written.
    fn types(&self) -> Vec<&Arc<EventType>> {
        let mut seen = HashSet::new();
        self.log.iter().map(|event| &event.event_type).filter(|event_type| seen.insert(*event_type)).collect()
    }
}

/// One page of a list that nothing is ever removed from, so the cursor is the number of entries before the page.
fn page<T, U>(
    entries: impl Iterator<Item = T>,
    list: &List,
    key: impl Fn(&T) -> &str,
    mut show: impl FnMut(T) -> U,
) -> Result<Listed<U>, StoreError> {
    let skipped: usize = match &list.after {
        None => 0,
        Some(after) => {
            after.as_str().parse().map_err(|_| StoreError::InvalidCursor { cursor: after.as_str().to_owned() })?
        }
    };
    let mut rest = entries.filter(|entry| key(entry).starts_with(list.prefix.as_str())).skip(skipped).peekable();
    let items: Vec<U> = rest.by_ref().take(list.limit).map(&mut show).collect();
    let next = rest.peek().map(|_| Cursor::new((skipped + items.len()).to_string()));
    Ok(Listed::new(items, next))
}
