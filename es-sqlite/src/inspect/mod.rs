//! What tools can query about a store in SQLite.

mod lists;
mod verify;

use std::sync::Arc;

use async_trait::async_trait;
use es_framework::inspect::{CheckpointInfo, Counts, Cursor, Inspect, List, Listed, SnapshotInfo, Verified};
use es_framework::{Cell, CommandRecord, EventId, EventType, StoreError, StoredEvent, StreamInfo};

use crate::engine::SqliteEngine;
use crate::read::pool::Turn;

#[async_trait]
impl Inspect for SqliteEngine {
    async fn counts(&self) -> Result<Counts, StoreError> {
        self.reading(Turn::Ahead, |connection, _| lists::counts(connection)).await
    }

    async fn streams(&self, list: &List) -> Result<Listed<StreamInfo>, StoreError> {
        let list = list.clone();
        self.reading(Turn::Ahead, move |connection, _| lists::streams(connection, &list)).await
    }

    async fn types(&self, list: &List) -> Result<Listed<Arc<EventType>>, StoreError> {
        let list = list.clone();
        self.reading(Turn::Ahead, move |connection, names| lists::types(connection, names, &list)).await
    }

    async fn cells(&self, list: &List) -> Result<Listed<Cell>, StoreError> {
        let list = list.clone();
        self.reading(Turn::Ahead, move |connection, _| lists::cells(connection, &list)).await
    }

    async fn snapshots(&self, list: &List) -> Result<Listed<SnapshotInfo>, StoreError> {
        let list = list.clone();
        self.reading(Turn::Ahead, move |connection, _| lists::snapshots(connection, &list)).await
    }

    async fn commands(&self, list: &List) -> Result<Listed<CommandRecord>, StoreError> {
        let list = list.clone();
        self.reading(Turn::Ahead, move |connection, _| lists::commands(connection, &list)).await
    }

    async fn checkpoints(&self, list: &List) -> Result<Listed<CheckpointInfo>, StoreError> {
        let list = list.clone();
        self.reading(Turn::Ahead, move |connection, _| lists::checkpoints(connection, &list)).await
    }

    async fn events_with_id(&self, id: &EventId, list: &List) -> Result<Listed<StoredEvent>, StoreError> {
        let (store, id, list) = (self.store_id(), id.clone(), list.clone());
        let find = move |connection: &_, names: &mut _| lists::events_with_id(connection, names, store, &id, &list);
        self.reading(Turn::Ahead, find).await
    }

    async fn verify(&self, after: Option<&Cursor>) -> Result<Verified, StoreError> {
        let (store, after) = (self.store_id(), after.cloned());
        let step = move |connection: &_, names: &mut _| verify::step(connection, names, store, after.as_ref());
        self.reading(Turn::Ahead, step).await
    }
}
