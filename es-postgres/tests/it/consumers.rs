//! The facts about consumers, with their state in memory and their records in the log's cells.

use es_conformance::ledger::{Ledger, Row};
use es_conformance::{Fixture, Setup, Shared};
use es_framework::{BoxError, Cleared, StateModel, StateTx, Store};

use crate::conformance::OnServer;

struct StateOnServer(OnServer);

impl StateOnServer {
    fn new() -> Option<Self> {
        OnServer::new().map(Self)
    }
}

impl Fixture for StateOnServer {
    async fn open_with(&self, setup: Setup) -> Store {
        self.0.open_with(setup).await
    }
}

impl Shared for StateOnServer {
    async fn second(&self, store: &Store) -> Store {
        self.0.second(store).await
    }
}

impl Ledger for StateOnServer {
    type Model = StateModel<Vec<Row>>;

    async fn model(&self, store: &Store) -> Self::Model {
        StateModel::new(store)
    }

    async fn after_death(&self, store: &Store, model: Self::Model) -> Self::Model {
        drop(model);
        StateModel::new(store)
    }

    fn prepare(_: &mut StateTx<'_, Vec<Row>>) -> Result<(), BoxError> {
        Ok(())
    }

    fn write(rows: &mut StateTx<'_, Vec<Row>>, row: Row) -> Result<(), BoxError> {
        rows.push(row);
        Ok(())
    }

    fn clear(_: &mut StateTx<'_, Vec<Row>>) -> Result<Cleared, BoxError> {
        Ok(Cleared::Nothing)
    }

    async fn rows(&self, model: &Self::Model) -> Vec<Row> {
        model.read(Clone::clone)
    }
}

mod state_on_server {
    use super::StateOnServer;
    es_conformance::conformance_consumers!(or_nothing!(StateOnServer::new()));
    es_conformance::conformance_consumers_shared!(or_nothing!(StateOnServer::new()));
}
