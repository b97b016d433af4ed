//! Building a read model anew beside the one that answers: in a file next to it, whose tables then replace the old ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use es_framework::{Fingerprint, ModelError, ProjectionName};
use tokio_rusqlite::rusqlite::Connection;

use crate::connection::worker::aside;
use crate::error::OpenError;
use crate::model::file::{Source, SqliteFile};
use crate::model::guard;
use crate::model::rules::{Asker, Home};
use crate::model::tx::SqliteTx;
use crate::model::{Location, Own, PATIENCE, SqliteModel, failed, project, records, replace};
use crate::opening::file;
use crate::options::Durability;

/// The record of the tables that a projector has made, as of the last time they were replaced; their names end with a
/// NUL each.
const TABLES: &str = "tables";

/// Where a model that is built beside another one is.
#[derive(Debug)]
pub(super) struct BuiltAt {
    /// The home of the other one, whose rules hold here too.
    pub(super) home: Home,
    source: Source,
}

/// The tables, indexes, views and triggers of a projector, as its `prepare` makes them in an empty database.
pub(super) async fn shape<F>(home: Home, prepare: F) -> Result<Fingerprint, ModelError>
where
    F: for<'t> FnOnce(&mut SqliteTx<'t>) -> Result<(), ModelError> + Send + 'static,
{
    let file = SqliteFile::in_memory().await.map_err(ModelError::failed)?;
    let texts = file.transact(move |connection| {
        records::create(connection).map_err(ModelError::failed)?;
        project(connection, home, prepare)?;
        let mut list = connection
            .prepare("SELECT type, name, coalesce(sql, '') FROM main.sqlite_schema ORDER BY type, name")
            .map_err(ModelError::failed)?;
        let mut texts = String::new();
        let mut rows = list.query([]).map_err(ModelError::failed)?;
        while let Some(row) = rows.next().map_err(ModelError::failed)? {
            for column in 0..3 {
                let text: String = row.get(column).map_err(ModelError::failed)?;
                // How a statement is laid out does not matter.
                texts.extend(text.split_whitespace().flat_map(|word| [word, " "]));
                texts.push('\0');
            }
        }
        Ok(texts)
    });
    let texts = texts.await.map_err(failed)?;
    file.close().await.map_err(ModelError::failed)?;
    Ok(Fingerprint::of(texts.as_bytes()))
}

pub(super) async fn open(
    model: &SqliteModel,
    name: &ProjectionName,
    generation: u64,
) -> Result<SqliteModel, ModelError> {
    let path = match &model.location {
        Location::InLog(store) => store.path(),
        Location::Own(own) => own.writer.path(),
    };
    let home = model.home();
    let Some(path) = path else {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let uri = format!("file:es-rebuild-{}?mode=memory&cache=shared", OPENED.fetch_add(1, Ordering::Relaxed));
        let writer = SqliteFile::in_shared_memory(uri.clone()).await.map_err(ModelError::failed)?;
        let built_at = BuiltAt { home, source: Source::Memory(uri) };
        return Ok(SqliteModel::own(Own { writer, reader: None, built_at: Some(built_at) }));
    };
    // The name may contain what a path cannot.
    let name = Fingerprint::of(name.as_str().as_bytes()).to_string();
    let path = file::beside(&path, &format!("-rebuild-{}-{generation}", name.get(..12).unwrap_or_default()));
    let opened: Result<SqliteModel, OpenError> = async {
        let writer = SqliteFile::open(&path, Durability::Normal, PATIENCE).await?;
        let reader = Some(writer.open_for_queries(PATIENCE).await?);
        let built_at = BuiltAt { home, source: Source::File(writer.path().unwrap_or(path)) };
        Ok(SqliteModel::own(Own { writer, reader, built_at: Some(built_at) }))
    }
    .await;
    opened.map_err(ModelError::failed)
}

pub(super) async fn replace<F>(
    model: &SqliteModel,
    name: &ProjectionName,
    built: &SqliteModel,
    agree: F,
) -> Result<(), ModelError>
where
    F: for<'t> FnOnce(&mut SqliteTx<'t>) -> Result<(), ModelError> + Send + 'static,
{
    let Location::Own(own) = &built.location else { return Err(not_built()) };
    let Some(BuiltAt { source, .. }) = &own.built_at else { return Err(not_built()) };
    let (name, source, home) = (name.clone(), source.clone(), model.home());
    model
        .in_transaction(move |live| {
            project(live, home, agree)?;
            let built = source.connect().map_err(ModelError::failed)?;
            let replaced = guard::asked_by(Asker::Engine, || in_place(live, &built, &name));
            // Statements that were prepared for the old tables are prepared again.
            live.flush_prepared_statement_cache();
            replaced
        })
        .await
}

fn in_place(live: &Connection, built: &Connection, name: &ProjectionName) -> Result<(), ModelError> {
    let before = records::get(live, name, TABLES).map_err(ModelError::failed)?.unwrap_or_default();
    let before = String::from_utf8(before.to_vec()).map_err(|_| ModelError::damaged(TABLES))?;
    let before: Vec<String> = before.split_terminator('\0').map(str::to_owned).collect();
    let made = replace::replace(live, built, &before)?;
    let made: String = made.iter().flat_map(|table| [table, "\0"]).collect();
    records::put(live, name, TABLES, made.as_bytes()).map_err(ModelError::failed)
}

fn not_built() -> ModelError {
    ModelError::not_allowed("this model was not built beside another one")
}

/// Closes a model that was built beside another one, and removes its files.
pub(super) async fn discard(built: &SqliteModel) -> Result<(), ModelError> {
    let Location::Own(own) = &built.location else { return Err(not_built()) };
    let Some(BuiltAt { source, .. }) = &own.built_at else { return Err(not_built()) };
    own.close().await.map_err(ModelError::failed)?;
    let Source::File(path) = source else { return Ok(()) };
    let path = path.clone();
    aside("es-sqlite-discard", move || remove(&path)).await.map_err(ModelError::failed)?
}

fn remove(path: &Path) -> Result<(), ModelError> {
    let all: [PathBuf; 3] = [path.to_owned(), file::beside(path, "-wal"), file::beside(path, "-shm")];
    for file in all {
        match fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(ModelError::failed(error)),
            _ => {}
        }
    }
    Ok(())
}
