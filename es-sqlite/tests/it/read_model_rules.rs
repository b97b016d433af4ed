//! What read models may do, and what happens to anything else.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use es_framework::{CellKey, ErrorKind, ModelError, ReadModel as _};
use es_sqlite::rusqlite::hooks::{AuthContext, Authorization};
use es_sqlite::rusqlite::{self, Connection, ErrorCode};
use es_sqlite::{SqliteModel, SqliteStore, SqliteTx};

use crate::read_models::deposit;
use crate::support::{all, files, folder, sql};

/// Where a read model lives, together with the store.
struct Site {
    name: &'static str,
    store: SqliteStore,
    model: SqliteModel,
    /// The log's file and the model's, unless they are in memory.
    files: Option<(PathBuf, PathBuf)>,
    _folder: tempfile::TempDir,
}

impl Site {
    fn in_log(&self) -> bool {
        self.name.contains("log")
    }

    /// What the store and the model rely on, as another connection sees it.
    fn ground(&self) -> Vec<String> {
        let Some((log, model)) = &self.files else { return Vec::new() };
        [log, model].into_iter().flat_map(|path| ground(path)).collect()
    }
}

fn ground(path: &Path) -> Vec<String> {
    let connection = sql(path);
    let mut found = Vec::new();
    for pragma in ["user_version", "application_id", "journal_mode", "encoding", "page_size", "auto_vacuum"] {
        let value = connection.pragma_query_value(None, pragma, |row| row.get::<_, rusqlite::types::Value>(0)).unwrap();
        found.push(format!("{pragma} {value:?}"));
    }
    let ours = "SELECT type || ' ' || name || ' on ' || tbl_name || ' ' || coalesce(sql, '') FROM sqlite_schema
        WHERE name NOT LIKE 'mine%' AND tbl_name NOT LIKE 'mine%' ORDER BY 1";
    let mut statement = connection.prepare(ours).unwrap();
    found.extend(statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap));
    found
}

async fn sites() -> Vec<Site> {
    let mut sites = Vec::new();
    for name in ["in the log's file", "in a log in memory", "in a file of its own", "in memory"] {
        let (folder, path) = folder();
        let own = folder.path().join("model.db");
        let on_file = name.contains("file");
        let store =
            if on_file { SqliteStore::open(&path).await.unwrap() } else { SqliteStore::in_memory().await.unwrap() };
        let model = match name {
            "in a file of its own" => SqliteModel::open(&own).await.unwrap(),
            "in memory" => SqliteModel::in_memory().await.unwrap(),
            _ => store.read_model(),
        };
        let in_log = name.contains("log");
        let files = on_file.then(|| (path.clone(), if in_log { path } else { own }));
        deposit(&store, "alice", [1]).await;
        model.start(&es_framework::ProjectionName::new("mine").unwrap()).await.unwrap();
        let tables = "CREATE TABLE mine (x INTEGER PRIMARY KEY, y UNIQUE); INSERT INTO mine VALUES (1, 1);
             CREATE TABLE mine_too (x INTEGER PRIMARY KEY, y)";
        run(&model, tables).await.unwrap();
        sites.push(Site { name, store, model, files, _folder: folder });
    }
    sites
}

async fn run(model: &SqliteModel, sql: &str) -> Result<(), ModelError> {
    let sql = sql.to_owned();
    model.transact(move |tx| tx.execute_batch(&sql).map_err(ModelError::failed)).await
}

/// Never allowed, anywhere.
const NOWHERE: &[&str] = &[
    "ATTACH ':memory:' AS other",
    "ATTACH 'store.db' AS other",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO 'copy.db'",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "END",
    "ROLLBACK",
    "SAVEPOINT s",
    "RELEASE s",
    "ROLLBACK TO s",
    "EXPLAIN COMMIT",
    "PRAGMA application_id = 7",
    "PRAGMA application_id = 1163086919",
    "PRAGMA application_id(7)",
    "PRAGMA main.application_id = 7",
    "pragma Query_Only = OFF",
    "PRAGMA query_only = ON",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA max_page_count = 1",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
    "PRAGMA fullfsync = OFF",
    "PRAGMA writable_schema = ON",
    "PRAGMA writable_schema = RESET",
    "PRAGMA schema_version = 1",
    "PRAGMA encoding = 'UTF-16'",
    "PRAGMA page_size = 512",
    "PRAGMA auto_vacuum = FULL",
    "PRAGMA incremental_vacuum",
    "PRAGMA wal_checkpoint",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA journal_size_limit = 0",
    "PRAGMA cache_size = 1",
    "PRAGMA mmap_size = 1000000",
    "PRAGMA temp_store = FILE",
    "PRAGMA trusted_schema = ON",
    "PRAGMA recursive_triggers = ON",
    "PRAGMA case_sensitive_like = ON",
    "PRAGMA ignore_check_constraints = ON",
    "PRAGMA legacy_alter_table = ON",
    "PRAGMA cell_size_check = OFF",
    "PRAGMA secure_delete = ON",
    "PRAGMA busy_timeout = 1",
    "PRAGMA threads = 8",
    "PRAGMA shrink_memory",
    "PRAGMA soft_heap_limit = 1",
    "PRAGMA hard_heap_limit = 1",
    "PRAGMA read_uncommitted = ON",
    "PRAGMA reverse_unordered_selects = ON",
    "PRAGMA automatic_index = OFF",
    "SELECT load_extension('nothing')",
    "DROP TABLE projection_records",
    "DELETE FROM projection_records",
    "DELETE FROM Projection_Records",
    "UPDATE projection_records SET value = x'00'",
    "INSERT OR REPLACE INTO projection_records VALUES ('mine', 'checkpoint', x'00')",
    "ALTER TABLE projection_records ADD COLUMN x",
    "ALTER TABLE projection_records RENAME TO mine_now",
    "ALTER TABLE projection_records RENAME COLUMN value TO place",
    "ALTER TABLE projection_records DROP COLUMN value",
    "CREATE INDEX mine_index ON projection_records (value)",
    "CREATE TRIGGER mine_t AFTER UPDATE ON projection_records BEGIN SELECT 1; END",
    "CREATE TEMP TRIGGER mine_t AFTER INSERT ON main.projection_records BEGIN DELETE FROM mine; END",
    "CREATE TEMP TABLE projection_records (name, key, value)",
    "CREATE TEMP VIEW projection_records AS SELECT 1",
    "CREATE TEMP TABLE mine_t (x); ALTER TABLE temp.mine_t RENAME TO projection_records",
    "CREATE TABLE mine_k (x REFERENCES projection_records (name))",
    "CREATE TABLE mine_k (x REFERENCES projection_records (value) DEFERRABLE INITIALLY DEFERRED)",
    "CREATE TABLE IF NOT EXISTS projection_records (x)",
    "CREATE TRIGGER mine_t AFTER DELETE ON mine BEGIN DELETE FROM projection_records; END; DELETE FROM mine",
    "WITH a AS (SELECT 1) DELETE FROM projection_records",
    "DROP VIEW projection_checkpoints",
    "CREATE TEMP TABLE projection_checkpoints (x)",
    "CREATE VIRTUAL TABLE mine_v USING dbstat",
    "CREATE VIRTUAL TABLE temp.mine_v USING dbstat(main)",
    "CREATE VIRTUAL TABLE mine_v USING nothing_like_it",
    "INSERT INTO sqlite_schema VALUES ('table', 'mine_s', 'mine_s', 2, 'CREATE TABLE mine_s (x)')",
    "DELETE FROM sqlite_schema",
    "UPDATE sqlite_schema SET sql = ''",
];

/// Not allowed for a projector in the log's file.
const IN_THE_LOG: &[&str] = &[
    "PRAGMA user_version = 3",
    "PRAGMA user_version(3)",
    "PRAGMA main . user_version = 3",
    "/* mine */ PRAGMA user_version = 3",
    "PRAGMA optimize",
    "PRAGMA optimize(0x10002)",
    "ANALYZE",
    "ANALYZE mine",
    "ANALYZE es_event",
    "ANALYZE main",
    "REINDEX",
    "REINDEX es_event",
    "REINDEX es_event_version",
    "DELETE FROM es_event",
    "DELETE FROM ES_EVENT",
    "DELETE FROM \"es_event\"",
    "DELETE FROM main.es_event WHERE position = 1",
    "UPDATE es_meta SET value = 1",
    "UPDATE es_event SET payload = x'00'",
    "UPDATE OR REPLACE es_event SET position = 2",
    "INSERT INTO es_cell VALUES ('k', 1, NULL, 0)",
    "INSERT OR IGNORE INTO es_event_type VALUES (9, 'a', 1, 'b', NULL, 0)",
    "REPLACE INTO es_snapshot VALUES ('a', 'b', 1, x'00', 1, x'00', 1)",
    "WITH a AS (SELECT 1) INSERT INTO es_command SELECT 'k', x'00', '', 1, 1, 1, 1, 1 FROM a",
    "DROP TABLE es_stream",
    "DROP TABLE IF EXISTS es_event",
    "DROP INDEX es_event_version",
    "DROP VIEW log",
    "DROP VIEW IF EXISTS Log",
    "DROP VIEW log; CREATE VIEW log AS SELECT 1",
    "ALTER TABLE es_event ADD COLUMN x",
    "ALTER TABLE es_event RENAME TO mine_now",
    "ALTER TABLE es_event RENAME COLUMN payload TO load",
    "ALTER TABLE es_event DROP COLUMN metadata",
    "ALTER TABLE mine_too RENAME TO es_mine",
    "ALTER TABLE mine_too RENAME TO ES_mine",
    "ALTER TABLE mine_too RENAME TO \"es_mine\"",
    "CREATE TEMP TABLE mine_t (x); ALTER TABLE mine_t RENAME TO es_event",
    "CREATE TEMP TABLE mine_t (x); ALTER TABLE mine_t RENAME TO log",
    "CREATE TABLE es_mine (x)",
    "CREATE TABLE IF NOT EXISTS es_event (x)",
    "CREATE TABLE Es_mine AS SELECT * FROM es_event",
    "CREATE TABLE 'es_mine' (x)",
    "CREATE TABLE log (x)",
    "CREATE VIEW es_mine AS SELECT 1",
    "CREATE INDEX i ON es_event (time)",
    "CREATE INDEX es_mine ON mine (y)",
    "CREATE UNIQUE INDEX mine_unique ON es_event (time)",
    "CREATE TRIGGER t AFTER INSERT ON es_event BEGIN SELECT 1; END",
    "CREATE TRIGGER es_mine AFTER INSERT ON mine BEGIN SELECT 1; END",
    "CREATE TRIGGER t INSTEAD OF INSERT ON log BEGIN SELECT 1; END",
    "CREATE TEMP TRIGGER t BEFORE INSERT ON es_event BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TEMP TRIGGER t BEFORE INSERT ON main.es_event BEGIN SELECT RAISE(FAIL, 'no'); END",
    "CREATE TEMP TRIGGER t AFTER INSERT ON es_stream BEGIN DELETE FROM mine; END",
    "CREATE TEMP TABLE es_event (position)",
    "CREATE TEMP TABLE es_meta AS SELECT * FROM main.es_meta",
    "CREATE TEMP VIEW es_event AS SELECT 1 AS position",
    "CREATE TEMP VIEW log AS SELECT 1",
    "CREATE TABLE temp.es_event (position)",
    "CREATE TRIGGER mine_t AFTER UPDATE ON mine BEGIN DELETE FROM es_event; END; UPDATE mine SET y = 2",
    "CREATE VIEW mine_v AS SELECT 1 AS a; CREATE TRIGGER mine_t INSTEAD OF INSERT ON mine_v
        BEGIN UPDATE es_meta SET value = 1; END; INSERT INTO mine_v VALUES (1)",
    "CREATE TABLE mine_k (x REFERENCES es_event (position))",
    "CREATE TABLE mine_k (x REFERENCES es_event (time) DEFERRABLE INITIALLY DEFERRED)",
    "CREATE TABLE mine_k (x, FOREIGN KEY (x) REFERENCES ES_command (key) ON DELETE RESTRICT)",
    "ALTER TABLE mine_too ADD COLUMN z REFERENCES es_cell (key) ON DELETE CASCADE",
    "CREATE VIRTUAL TABLE es USING fts5(x)",
    "CREATE VIRTUAL TABLE es_text USING fts5(x)",
    "CREATE VIRTUAL TABLE es USING fts4(x)",
    "CREATE VIRTUAL TABLE es USING rtree(id, a, b)",
    "CREATE VIRTUAL TABLE mine_f USING fts5(x); ALTER TABLE mine_f RENAME TO es",
    "CREATE TABLE sqlite_stat1 (tbl, idx, stat)",
    "INSERT INTO dbstat VALUES (1)",
];

/// Not allowed for queries, in addition to all of the above.
const IN_QUERIES: &[&str] = &[
    "INSERT INTO mine VALUES (2, 2)",
    "UPDATE mine SET y = 3",
    "DELETE FROM mine",
    "DROP TABLE mine",
    "CREATE TABLE mine_new (x)",
    "CREATE TEMP TABLE mine_new (x)",
    "CREATE TEMP VIEW mine_new AS SELECT 1",
    "ALTER TABLE mine ADD COLUMN z",
    "CREATE INDEX mine_y ON mine (y)",
    "PRAGMA user_version = 3",
    "PRAGMA defer_foreign_keys = ON",
    "PRAGMA optimize",
    "ANALYZE",
    "REINDEX mine",
    "PRAGMA query_only = OFF; DELETE FROM es_event",
    "PRAGMA query_only = OFF; DELETE FROM mine",
    "INSERT INTO mine VALUES (2, 2) RETURNING x",
];

/// A typo, a habit from another project, or worse: whatever a projector runs, the store keeps working, can be opened
/// again, and has all its events; and the projector learns the reason.
#[tokio::test]
async fn what_a_projector_may_not_do_is_refused_and_harms_nothing() {
    for site in sites().await {
        let ground = site.ground();
        let mut events = all(&site.store).await.len();
        for &sql in NOWHERE.iter().chain(if site.in_log() { IN_THE_LOG } else { &[] }) {
            // In each way that a transaction can run a statement.
            let ways = [by_batch, by_execute, by_query_row, by_prepare];
            for way in ways.into_iter().take(if sql.contains("; ") { 1 } else { 4 }) {
                let told = site.model.transact(move |tx| way(tx, sql).map_err(ModelError::failed)).await;
                let Err(told) = told else { panic!("{sql} is allowed {}", site.name) };
                deposit(&site.store, "alice", [1]).await;
                events += 1;
                // SQLite itself rejects these first.
                let others = ["sqlite_schema", "sqlite_stat1", "VACUUM", "nothing_like_it", "INTO dbstat"];
                if !others.iter().any(|other| sql.contains(other)) {
                    let is_refused = matches!(&told, ModelError::Failed { source } if source
                        .downcast_ref::<rusqlite::Error>()
                        .is_some_and(|error| error.sqlite_error_code() == Some(ErrorCode::AuthorizationForStatementDenied)));
                    assert!(
                        is_refused && (told.to_string().contains("not authorized") || sql.contains("fts4")),
                        "{sql} {}: {told:?}",
                        site.name
                    );
                }
            }
            assert_eq!(site.ground(), ground, "{sql} {}", site.name);
        }
        works_on(site, events).await;
    }
}

#[tokio::test]
async fn what_a_query_may_not_do_is_refused_and_harms_nothing() {
    for site in sites().await {
        let ground = site.ground();
        let mut events = all(&site.store).await.len();
        let in_the_log = if site.in_log() { IN_THE_LOG } else { &[] };
        for &sql in NOWHERE.iter().chain(in_the_log).chain(IN_QUERIES) {
            let ways: [fn(&Connection, &str) -> rusqlite::Result<()>; 3] = [
                |connection, sql| connection.execute_batch(sql),
                |connection, sql| connection.query_row(sql, [], |_| Ok(())),
                |connection, sql| connection.prepare_cached(sql)?.query([])?.next().map(drop),
            ];
            for way in ways.into_iter().take(if sql.contains("; ") { 1 } else { 3 }) {
                let told = site.model.query(move |connection| way(connection, sql)).await;
                let Err(told) = told else { panic!("{sql} is allowed {}", site.name) };
                if let ModelError::NotAllowed { source } = &told {
                    assert_eq!(told.kind(), ErrorKind::Caller);
                    assert!(source.to_string().starts_with("not authorized: "), "{told:?}");
                }
                deposit(&site.store, "alice", [1]).await;
                events += 1;
            }
            assert_eq!(site.ground(), ground, "{sql} {}", site.name);
        }
        let rows = site.model.query(|connection: &Connection| {
            connection.query_row("SELECT count(*) FROM mine", [], |row| row.get::<_, i64>(0))
        });
        assert_eq!(rows.await.unwrap(), 1);
        works_on(site, events).await;
    }
}

fn by_batch(tx: &mut SqliteTx<'_>, sql: &str) -> rusqlite::Result<()> {
    tx.execute_batch(sql)
}

fn by_execute(tx: &mut SqliteTx<'_>, sql: &str) -> rusqlite::Result<()> {
    tx.execute(sql, []).map(drop)
}

fn by_query_row(tx: &mut SqliteTx<'_>, sql: &str) -> rusqlite::Result<()> {
    tx.query_row(sql, [], |_| Ok(()))
}

fn by_prepare(tx: &mut SqliteTx<'_>, sql: &str) -> rusqlite::Result<()> {
    let mut statement = tx.prepare(sql)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    drop(rows);
    drop(statement);
    // What only shows afterwards is detected before the commit; this way of running it ignores it until then.
    tx.execute("UPDATE mine SET y = y", []).map(drop)
}

/// Closes and reopens what is in files, and reads everything.
async fn works_on(site: Site, events: usize) {
    assert_eq!(all(&site.store).await.len(), events, "{}", site.name);
    site.model.close().await.unwrap();
    site.store.close().await.unwrap();
    let Some((log, own)) = &site.files else { return };
    let store = SqliteStore::open(log).await.unwrap();
    deposit(&store, "alice", [1]).await;
    assert_eq!(all(&store).await.len(), events + 1, "{}", site.name);
    let model = if site.in_log() { store.read_model() } else { SqliteModel::open(own).await.unwrap() };
    run(&model, "INSERT INTO mine VALUES (100, 100)").await.unwrap();
    model.close().await.unwrap();
    store.close().await.unwrap();
    for path in [log, own] {
        let sound: String = sql(path).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
    }
}

/// Allowed for every projector.
const ALLOWED: &[&str] = &[
    "CREATE TABLE mine_a (x INTEGER PRIMARY KEY AUTOINCREMENT, y TEXT NOT NULL DEFAULT 'z', CHECK (length(y) > 0));
        INSERT INTO mine_a (y) VALUES ('a'), ('b'); DELETE FROM sqlite_sequence WHERE name = 'mine_a'",
    "CREATE TABLE mine_b (x TEXT PRIMARY KEY, y INT GENERATED ALWAYS AS (length(x))) STRICT, WITHOUT ROWID",
    "CREATE TABLE mine_c AS SELECT * FROM mine",
    "CREATE TABLE IF NOT EXISTS mine_c (x)",
    "CREATE INDEX mine_c_x ON mine_c (x); CREATE UNIQUE INDEX mine_c_y ON mine_c (lower(y)) WHERE y IS NOT NULL",
    "REINDEX mine_c_x; REINDEX mine",
    "DROP INDEX mine_c_x",
    "CREATE VIEW mine_v AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9)
        SELECT i, sum(i) OVER (ORDER BY i) AS s FROM n",
    "SELECT * FROM mine_v",
    "DROP VIEW mine_v",
    "CREATE TRIGGER IF NOT EXISTS mine_t AFTER UPDATE ON mine BEGIN INSERT INTO mine_too VALUES (NULL, new.y); END",
    // At the second start it already exists.
    "CREATE TRIGGER IF NOT EXISTS mine_t AFTER UPDATE ON mine BEGIN INSERT INTO mine_too VALUES (NULL, new.y); END",
    "UPDATE mine SET y = y + 1",
    "DROP TRIGGER mine_t",
    "DROP TRIGGER IF EXISTS mine_t",
    "DROP TABLE IF EXISTS mine_none",
    "INSERT INTO mine VALUES (1, 2) ON CONFLICT (x) DO UPDATE SET y = excluded.y RETURNING y",
    "INSERT OR REPLACE INTO mine VALUES (1, 3)",
    "REPLACE INTO mine SELECT 2, count(*) + 10 FROM projection_checkpoints",
    "ALTER TABLE mine_c ADD COLUMN z DEFAULT 1; ALTER TABLE mine_c RENAME COLUMN z TO zz; ALTER TABLE mine_c DROP COLUMN zz",
    // As SQLite's own manual alters a table.
    "CREATE TABLE mine_d (x INTEGER PRIMARY KEY, y); INSERT INTO mine_d SELECT rowid, y FROM mine_c; DROP TABLE mine_c;
        ALTER TABLE mine_d RENAME TO mine_c",
    "CREATE TABLE mine_parent (x PRIMARY KEY);
        CREATE TABLE mine_child (x REFERENCES mine_parent (x) DEFERRABLE INITIALLY DEFERRED);
        INSERT INTO mine_child VALUES (1); INSERT INTO mine_parent VALUES (1)",
    "PRAGMA defer_foreign_keys = ON",
    "CREATE TEMP TABLE mine_temp (x); INSERT INTO mine_temp SELECT x FROM mine; DROP TABLE mine_temp",
    "CREATE VIRTUAL TABLE mine_text USING fts5(x, tokenize = 'porter'); INSERT INTO mine_text VALUES ('running');
        SELECT * FROM mine_text WHERE mine_text MATCH 'run'; INSERT INTO mine_text (mine_text) VALUES ('optimize');
        INSERT INTO mine_text (mine_text) VALUES ('rebuild'); DELETE FROM mine_text",
    "ALTER TABLE mine_text RENAME TO mine_words; DROP TABLE mine_words",
    "CREATE VIRTUAL TABLE mine_old USING fts4(x); INSERT INTO mine_old VALUES ('a b'), ('b c');
        INSERT INTO mine_old (mine_old) VALUES ('optimize'); INSERT INTO mine_old (mine_old) VALUES ('rebuild');
        DROP TABLE mine_old",
    "CREATE VIRTUAL TABLE mine_tree USING rtree(id, a, b); INSERT INTO mine_tree VALUES (1, 2, 3); DROP TABLE mine_tree",
    "SELECT json_extract('{\"a\":1}', '$.a'), value FROM json_each('[1,2]')",
    "PRAGMA table_info(mine); PRAGMA table_xinfo(mine); PRAGMA index_list(mine); PRAGMA foreign_key_list(mine_child)",
    "SELECT * FROM pragma_table_info('mine'); SELECT * FROM pragma_table_list",
    "PRAGMA user_version; PRAGMA application_id; PRAGMA page_count; PRAGMA Foreign_Keys; PRAGMA main.synchronous",
    "PRAGMA foreign_key_check; PRAGMA quick_check; PRAGMA database_list",
    "EXPLAIN QUERY PLAN SELECT * FROM mine",
    "-- Nothing but a comment.",
    "",
];

/// Allowed if the file is the read model's own.
const ALLOWED_IN_ITS_OWN: &[&str] = &[
    "PRAGMA user_version = 3",
    "ANALYZE; ANALYZE mine; SELECT * FROM sqlite_stat1; DELETE FROM sqlite_stat1",
    "PRAGMA optimize",
    "CREATE TABLE es_mine (x REFERENCES es_other (x)); CREATE TABLE es_other (x PRIMARY KEY); CREATE TABLE log (x);
        ALTER TABLE log RENAME TO es_log; DROP TABLE es_mine",
];

/// Allowed in the log's file, where the log can be read.
const ALLOWED_IN_THE_LOG: &[&str] = &[
    "CREATE TABLE mine_log AS SELECT * FROM log; CREATE VIEW mine_log_view AS SELECT * FROM es_event JOIN log USING (position)",
    "INSERT INTO mine_log SELECT * FROM log WHERE position IN (SELECT position FROM es_event)",
    "CREATE TRIGGER mine_reads AFTER INSERT ON mine_log BEGIN
        INSERT INTO mine_too SELECT NULL, count(*) FROM es_event; END; INSERT INTO mine_log SELECT * FROM log",
];

#[tokio::test]
async fn what_a_projector_needs_is_allowed() {
    for site in sites().await {
        let events = all(&site.store).await.len();
        let also = if site.in_log() { ALLOWED_IN_THE_LOG } else { ALLOWED_IN_ITS_OWN };
        for sql in ALLOWED.iter().chain(also) {
            run(&site.model, sql).await.unwrap_or_else(|error| panic!("{sql} {}: {error}", site.name));
        }
        works_on(site, events).await;
    }
}

#[tokio::test]
async fn what_a_query_needs_is_allowed() {
    for site in sites().await {
        run(&site.model, "CREATE VIRTUAL TABLE mine_text USING fts5(x); INSERT INTO mine_text VALUES ('a b')")
            .await
            .unwrap();
        run(&site.model, "CREATE VIRTUAL TABLE mine_old USING fts4(x); INSERT INTO mine_old VALUES ('a b')")
            .await
            .unwrap();
        for sql in [
            "SELECT x, y, sum(y) OVER (ORDER BY x) FROM mine",
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT i FROM n",
            "SELECT snippet(mine_text, 0, '[', ']', '', 3) FROM mine_text WHERE mine_text MATCH 'b'",
            "SELECT snippet(mine_old) FROM mine_old WHERE mine_old MATCH 'b'",
            "SELECT value FROM json_each('[1, 2]')",
            "SELECT position FROM projection_checkpoints UNION ALL SELECT 1",
            "SELECT name FROM sqlite_schema",
            "SELECT name FROM pragma_table_info('mine')",
            "PRAGMA table_info(mine)",
            "PRAGMA integrity_check",
            "PRAGMA user_version",
            "PRAGMA cache_size",
            "EXPLAIN QUERY PLAN SELECT * FROM mine",
            "VALUES (1)",
        ] {
            // The second time from the connection's cache.
            for _ in 0..2 {
                let found = site.model.query(move |connection| {
                    connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, rusqlite::types::Value>(0))
                });
                found.await.unwrap_or_else(|error| panic!("{sql} {}: {error}", site.name));
            }
        }
        let events = all(&site.store).await.len();
        works_on(site, events).await;
    }
}

/// The store caches its statements, and SQLite checks a statement only once: a projector using the same text got the
/// statement that was checked as the store's, or not at all.
#[tokio::test]
async fn a_statement_that_the_store_has_at_hand_is_judged_all_the_same() {
    let cell = "INSERT OR REPLACE INTO es_cell (key, revision, value, checksum) VALUES (?1, ?2, ?3, ?4)";
    let begin = "BEGIN IMMEDIATE";
    let checkpoint = "INSERT INTO projection_records (name, key, value) VALUES (?1, ?2, ?3)
         ON CONFLICT (name, key) DO UPDATE SET value = excluded.value";
    for site in sites().await {
        let key = CellKey::new("k").unwrap();
        site.store.engine().set_cell(&key, 0, Some("v".into())).await.unwrap();
        let name = es_framework::ProjectionName::new("mine").unwrap();
        site.model.transact(move |tx| SqliteModel::put(tx, &name, "checkpoint", b"v")).await.unwrap();
        for sql in [cell, begin, "COMMIT", checkpoint] {
            let refused = site.model.transact(move |tx| {
                let parameters = rusqlite::params!["k", 9, 9, 9, 9];
                let parameters = &parameters[..if sql == cell {
                    4
                } else if sql == checkpoint {
                    3
                } else {
                    0
                }];
                tx.execute(sql, parameters).map_err(ModelError::failed)
            });
            refused.await.expect_err(sql);
            let refused = site.model.query(move |connection| {
                let parameters = rusqlite::params!["k", 9, 9, 9, 9];
                let parameters = &parameters[..if sql == cell {
                    4
                } else if sql == checkpoint {
                    3
                } else {
                    0
                }];
                connection.prepare_cached(sql)?.execute(parameters)
            });
            refused.await.expect_err(sql);
        }
        assert_eq!(site.store.engine().cell(&key).await.unwrap().unwrap().revision, 1);
        let events = all(&site.store).await.len();
        works_on(site, events).await;
    }
}

/// A statement that is prepared in one transaction and run in the next is not checked a second time.
#[tokio::test]
async fn a_table_that_was_to_be_altered_is_looked_at_when_it_is() {
    let store = SqliteStore::in_memory().await.unwrap();
    let model = store.read_model();
    run(&model, "CREATE TABLE mine (x)").await.unwrap();
    let rename = "ALTER TABLE mine RENAME TO es_mine";
    model.transact(move |tx| tx.prepare(rename).map(drop).map_err(ModelError::failed)).await.unwrap();
    let passed_over = model.transact(move |tx| {
        tx.execute(rename, []).unwrap_err();
        Ok(())
    });
    let error = passed_over.await.unwrap_err();
    assert!(matches!(&error, ModelError::CommitRefused { .. }) && error.kind() == ErrorKind::Caller, "{error:?}");
    assert!(error.to_string().contains("cannot be renamed"), "{error}");
    run(&model, "INSERT INTO mine VALUES (1)").await.unwrap();
}

/// `INSERT OR ROLLBACK` ends the transaction, and then a statement that the projector still holds would be committed
/// alone, without the checkpoint.
#[tokio::test]
async fn nothing_is_committed_after_sqlite_has_ended_the_transaction() {
    for site in sites().await {
        let ended = site.model.transact(|tx| {
            let mut insert = tx.prepare("INSERT OR ROLLBACK INTO mine_too VALUES (?1, 1)").unwrap();
            insert.execute([1]).unwrap();
            insert.execute([1]).unwrap_err();
            insert.execute([2]).unwrap_err();
            Ok(())
        });
        let error = ended.await.unwrap_err();
        assert!(matches!(&error, ModelError::CommitRefused { .. }), "{error:?}");
        assert!(error.to_string().contains("rolled the transaction back"), "{error}");
        let rows = site
            .model
            .query(|connection| connection.query_row("SELECT count(*) FROM mine_too", [], |row| row.get::<_, i64>(0)));
        assert_eq!(rows.await.unwrap(), 0, "{}", site.name);
    }
}

/// Code with a connection can remove the hook that checks its statements; with a file it still cannot write.
#[tokio::test]
async fn a_query_cannot_write_even_if_nobody_judges_it() {
    for site in sites().await.into_iter().filter(|site| site.files.is_some()) {
        let events = all(&site.store).await.len();
        for write in
            ["DELETE FROM mine", "DELETE FROM projection_records", "DROP TABLE mine", "PRAGMA user_version = 9"]
        {
            let tried = site.model.query(move |connection| {
                connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
                connection.pragma_update(None, "query_only", false)?;
                connection.execute_batch(write)
            });
            let error = tried.await.unwrap_err();
            assert!(format!("{error:?}").contains("ReadOnly"), "{write}: {error:?}");
        }
        works_on(site, events).await;
    }
}

/// A report that adds up two tables must not see the first before a batch and the second after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_statements_of_a_query_see_the_same_batches() {
    for site in sites().await.into_iter().filter(|site| site.files.is_some()) {
        let ((looked, has_looked), (go_on, may_go_on)) = (mpsc::channel(), mpsc::channel::<()>());
        let model = site.model.clone();
        let query = tokio::spawn(async move {
            let query = model.query(move |connection| {
                let count = || connection.query_row("SELECT count(*) FROM mine", [], |row| row.get::<_, i64>(0));
                let first = count()?;
                looked.send(()).unwrap();
                may_go_on.recv_timeout(Duration::from_secs(30)).unwrap();
                Ok((first, count()?))
            });
            query.await.unwrap()
        });
        tokio::task::spawn_blocking(move || has_looked.recv().unwrap()).await.unwrap();
        run(&site.model, "INSERT INTO mine VALUES (7, 7)").await.unwrap();
        go_on.send(()).unwrap();
        assert_eq!(query.await.unwrap(), (1, 1), "{}", site.name);
        let count =
            |connection: &Connection| connection.query_row("SELECT count(*) FROM mine", [], |row| row.get::<_, i64>(0));
        assert_eq!(site.model.query(count).await.unwrap(), 2, "the next one sees it");
    }
}

#[tokio::test]
async fn a_model_that_is_dropped_leaves_no_files_beside_its_own() {
    let (_folder, path) = folder();
    for _ in 0..5 {
        let model = SqliteModel::open(&path).await.unwrap();
        run(&model, "CREATE TABLE IF NOT EXISTS mine (x); INSERT INTO mine VALUES (1)").await.unwrap();
        model.query(|connection| connection.query_row("SELECT x FROM mine", [], |_| Ok(()))).await.unwrap();
        assert_eq!(files(&path).len(), 3, "the write-ahead log is in use");
        drop(model);
        let alone = async {
            while files(&path).len() > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), alone).await.expect("the -wal and -shm files go");
    }
}

#[tokio::test]
async fn errors_say_what_is_wrong_once() {
    let model = SqliteModel::in_memory().await.unwrap();
    let typo = "SELECT  nothing";
    let error = model.transact(move |tx| Ok(tx.query_row(typo, [], |_| Ok(())).unwrap_err())).await.unwrap();
    let rusqlite::Error::SqlInputError { sql, offset, .. } = &error else { panic!("{error:?}") };
    assert_eq!((sql.as_str(), *offset), (typo, 8));
    let absent = model.query(|connection| connection.query_row("SELECT x FROM absent", [], |_| Ok(())));
    let refused = model.query(|connection| connection.execute_batch("PRAGMA user_version = 3"));
    for (error, said) in
        [(absent.await.unwrap_err(), "no such table: absent"), (refused.await.unwrap_err(), "only reads")]
    {
        let mut chain = vec![error.to_string()];
        let mut next = std::error::Error::source(&error);
        while let Some(error) = next {
            chain.push(error.to_string());
            next = error.source();
        }
        assert_eq!(chain.iter().filter(|error| error.contains(said)).count(), 1, "{chain:?}");
        assert!(chain[0].contains(said), "{chain:?}");
    }
}
