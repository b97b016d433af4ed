//! What statements of read models may do, and what becomes of those that may not.

use std::path::{Path, PathBuf};

use es_framework::{ErrorKind, ModelError, ReadModel as _};
use es_sqlite::rusqlite::{self, ErrorCode};
use es_sqlite::{SqliteModel, SqliteStore, SqliteTx};

use crate::read_models::deposit;
use crate::support::{all, folder, sql};

#[tokio::test]
async fn a_projector_cannot_begin_or_end_transactions_and_a_query_cannot_write() {
    let model = SqliteModel::in_memory().await.unwrap();
    for control in ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "CREATE TABLE t (x); COMMIT"] {
        let refused = model
            .transact(move |tx| {
                let refused = tx.execute_batch(control).unwrap_err().to_string();
                tx.execute_batch("CREATE TABLE kept (x)").map_err(ModelError::failed)?;
                Ok(refused)
            })
            .await
            .unwrap();
        assert!(refused.contains("its runner does"), "{control}: {refused}");
        model.transact(|tx| tx.execute_batch("DROP TABLE kept").map_err(ModelError::failed)).await.unwrap();
    }
    model.query(|connection| connection.execute_batch("CREATE TABLE u (x)")).await.unwrap_err();
    let panicked = model.query(|_| -> rusqlite::Result<()> { panic!("a look that breaks") }).await;
    panicked.unwrap_err();
    let written = model.transact(|tx| tx.execute_batch("CREATE TABLE v (x)").map_err(ModelError::failed)).await;
    written.expect("a look that panicked does not keep the projector from writing");
}

#[tokio::test]
async fn a_read_model_in_the_logs_file_cannot_change_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let on_file = SqliteStore::open(folder.path().join("log.db")).await.unwrap();
    for store in [on_file, SqliteStore::in_memory().await.unwrap()] {
        deposit(&store, "alice", [1]).await;
        let model = store.read_model();
        for change in [
            "DELETE FROM es_event",
            "UPDATE es_meta SET value = 1",
            "INSERT INTO es_cell VALUES ('k', 1, NULL, 0)",
            "DROP TABLE es_stream",
            "ALTER TABLE es_event ADD COLUMN x",
            "CREATE INDEX i ON es_event (time)",
            "CREATE TRIGGER t AFTER INSERT ON es_event BEGIN SELECT 1; END",
        ] {
            let refused = model.transact(move |tx| tx.execute_batch(change).map_err(ModelError::failed));
            let refused = refused.await.unwrap_err();
            assert!(format!("{refused:?}").contains("not authorized"), "{change}: {refused:?}");
        }
        let seen = model.transact(|tx| {
            tx.execute_batch("CREATE TABLE mine (x); INSERT INTO mine SELECT count(*) FROM es_event")
                .and_then(|()| tx.query_row("SELECT x FROM mine", [], |row| row.get::<_, i64>(0)))
                .map_err(ModelError::failed)
        });
        assert_eq!(seen.await.unwrap(), 1, "it may look at the log, and write tables of its own");
        deposit(&store, "alice", [1]).await;
        store.close().await.unwrap();
    }
}

/// What stands in table `t`, after some statements run one way or the other.
async fn after(
    statements: &'static [(&'static str, &'static [(&'static str, i64)])],
    kept: bool,
) -> (Vec<String>, String) {
    let model = SqliteModel::in_memory().await.unwrap();
    let answers = model.transact(move |tx| {
        let mut run = |sql: &str, params: &[(&str, i64)]| {
            let params: Vec<_> = params.iter().map(|(name, value)| (*name, value as &dyn rusqlite::ToSql)).collect();
            if kept { tx.execute(sql, &*params) } else { tx.prepare(sql)?.execute(&*params) }
        };
        // From a buffer that is written over: a statement is not known by where its text stands.
        let mut buffer = String::new();
        let answers = statements.iter().map(|(sql, params)| {
            buffer.clear();
            buffer.push_str(sql);
            format!("{:?}", run(&buffer, params))
        });
        Ok(answers.collect::<Vec<_>>())
    });
    let answers = answers.await.unwrap();
    let rows = "SELECT group_concat(a || ':' || coalesce(b, 'null'), ' ') FROM (SELECT * FROM t ORDER BY a)";
    (answers, model.query(move |connection| connection.query_row(rows, [], |row| row.get(0))).await.unwrap())
}

/// The way past the connection's cache (`SqliteTx::run`) changes nothing but the time it takes.
#[tokio::test]
async fn statements_kept_at_hand_do_what_others_do() {
    const INSERT: &str = "INSERT INTO t (a, b) VALUES (:a, :b)";
    const UPDATE: &str = "UPDATE t SET b = b + 1 WHERE a > :a";
    let statements: &[(&str, &[(&str, i64)])] = &[
        (INSERT, &[(":a", 0)]),
        ("CREATE TABLE t (a INTEGER PRIMARY KEY, b INTEGER)", &[]),
        (INSERT, &[(":a", 1), (":b", 10)]),
        // A parameter that is not given is null, and not what it was.
        (INSERT, &[(":a", 2)]),
        (INSERT, &[(":b", 30)]),
        // One that fails runs again.
        (INSERT, &[(":a", 1), (":b", 11)]),
        (INSERT, &[(":none", 1)]),
        ("SELECT a FROM t", &[]),
        ("SELECT a FROM t", &[]),
        ("COMMIT", &[]),
        ("COMMIT", &[]),
        (UPDATE, &[(":a", 1)]),
        (INSERT, &[(":a", 4), (":b", 40)]),
        // The tables change under it.
        ("ALTER TABLE t ADD COLUMN c", &[]),
        (INSERT, &[(":a", 5), (":b", 50)]),
        (UPDATE, &[(":a", 4)]),
        // More than are kept, round after round.
        ("UPDATE t SET b = b + 1", &[]),
        ("UPDATE t SET b = b + 2", &[]),
        ("UPDATE t SET b = b + 3", &[]),
        ("UPDATE t SET b = b + 4", &[]),
        ("UPDATE t SET b = b + 5", &[]),
        ("UPDATE t SET b = b + 6", &[]),
        ("UPDATE t SET b = b + 7", &[]),
        ("UPDATE t SET b = b + 8", &[]),
        ("UPDATE t SET b = b + 9", &[]),
        (INSERT, &[(":a", 6), (":b", 60)]),
        ("UPDATE t SET b = b + 1", &[]),
        (" UPDATE t SET b = b + 1 ", &[]),
    ];
    let (answers, rows) = after(statements, true).await;
    assert_eq!((answers.clone(), rows.clone()), after(statements, false).await);
    let refused = answers.iter().filter(|answer| answer.contains("its runner does")).count();
    assert_eq!((refused, rows.as_str()), (2, "1:57 2:null 3:78 4:87 5:98 6:62"), "{answers:#?}");
}

#[tokio::test]
async fn a_statement_kept_at_hand_is_refused_when_the_transaction_has_ended() {
    let model = SqliteModel::in_memory().await.unwrap();
    let made =
        model.transact(|tx| tx.execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY)").map_err(ModelError::failed));
    made.await.unwrap();
    let ended = model.transact(|tx| {
        let insert = "INSERT OR ROLLBACK INTO t VALUES (?1)";
        tx.execute(insert, [1]).map_err(ModelError::failed)?;
        tx.execute(insert, [1]).unwrap_err();
        let refused = tx.execute(insert, [2]).unwrap_err().to_string();
        assert!(refused.contains("rolled the transaction back"), "{refused}");
        let refused = tx.query_row("SELECT 1", [], |_| Ok(())).unwrap_err().to_string();
        assert!(refused.contains("rolled the transaction back"), "{refused}");
        Ok(())
    });
    ended.await.unwrap_err();
    let count =
        |connection: &rusqlite::Connection| connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0));
    assert_eq!(model.query::<i64, _>(count).await.unwrap(), 0);
}

/// Where a read model lives, with the store beside it.
struct Site {
    name: &'static str,
    store: SqliteStore,
    model: SqliteModel,
    /// The log's file and the model's, if they are in files.
    files: Option<(PathBuf, PathBuf)>,
    _folder: tempfile::TempDir,
}

impl Site {
    fn in_log(&self) -> bool {
        self.name.contains("log")
    }

    /// What the store and the model rest on, as somebody else sees it.
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
        let tables = "CREATE TABLE mine (x INTEGER PRIMARY KEY, y); INSERT INTO mine VALUES (1, 1);
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

/// Not allowed to anybody, anywhere.
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
    "PRAGMA optimize(0x10002)",
    "SELECT load_extension('nothing')",
    "DROP TABLE projection_checkpoints",
    "DELETE FROM projection_checkpoints",
    "DELETE FROM Projection_Checkpoints",
    "UPDATE projection_checkpoints SET position = 0",
    "INSERT OR REPLACE INTO projection_checkpoints VALUES ('mine', x'00', 1, 1, 1)",
    "ALTER TABLE projection_checkpoints ADD COLUMN x",
    "ALTER TABLE projection_checkpoints RENAME TO mine_now",
    "ALTER TABLE projection_checkpoints RENAME COLUMN position TO place",
    "ALTER TABLE projection_checkpoints DROP COLUMN events",
    "CREATE INDEX mine_index ON projection_checkpoints (position)",
    "CREATE TRIGGER mine_t AFTER UPDATE ON projection_checkpoints BEGIN SELECT 1; END",
    "CREATE TEMP TRIGGER mine_t AFTER INSERT ON main.projection_checkpoints BEGIN DELETE FROM mine; END",
    "CREATE TEMP TABLE projection_checkpoints (name, store, position, checksum, events)",
    "CREATE TEMP VIEW projection_checkpoints AS SELECT 1",
    "CREATE TEMP TABLE mine_t (x); ALTER TABLE temp.mine_t RENAME TO projection_checkpoints",
    "CREATE TABLE mine_k (x REFERENCES projection_checkpoints (name))",
    "CREATE TABLE mine_k (x REFERENCES projection_checkpoints (position) DEFERRABLE INITIALLY DEFERRED)",
    "CREATE TABLE IF NOT EXISTS projection_checkpoints (x)",
    "CREATE TRIGGER mine_t AFTER DELETE ON mine BEGIN DELETE FROM projection_checkpoints; END; DELETE FROM mine",
    "WITH a AS (SELECT 1) DELETE FROM projection_checkpoints",
    "CREATE VIRTUAL TABLE mine_v USING dbstat",
    "CREATE VIRTUAL TABLE temp.mine_v USING dbstat(main)",
    "CREATE VIRTUAL TABLE mine_v USING nothing_like_it",
    "INSERT INTO sqlite_schema VALUES ('table', 'mine_s', 'mine_s', 2, 'CREATE TABLE mine_s (x)')",
    "DELETE FROM sqlite_schema",
    "UPDATE sqlite_schema SET sql = ''",
];

/// Not allowed to a projector in the log's file.
const IN_THE_LOG: &[&str] = &[
    "PRAGMA user_version = 3",
    "PRAGMA user_version(3)",
    "PRAGMA main . user_version = 3",
    "/* mine */ PRAGMA user_version = 3",
    "PRAGMA optimize",
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

/// Not allowed to queries, beside all of the above.
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

/// A typo, a habit of another project, or worse: whatever a projector runs, the store works on, can be opened again, and
/// has all its events; and the projector is told why.
#[tokio::test]
async fn what_a_projector_may_not_do_is_refused_and_harms_nothing() {
    for site in sites().await {
        let ground = site.ground();
        let mut events = all(&site.store).await.len();
        for &sql in NOWHERE.iter().chain(if site.in_log() { IN_THE_LOG } else { &[] }) {
            // By each way that a transaction has to run a statement.
            let ways = [by_batch, by_execute, by_query_row, by_prepare];
            for way in ways.into_iter().take(if sql.contains("; ") { 1 } else { 4 }) {
                let told = site.model.transact(move |tx| way(tx, sql).map_err(ModelError::failed)).await;
                let Err(told) = told else { panic!("{sql} is allowed {}", site.name) };
                deposit(&site.store, "alice", [1]).await;
                events += 1;
                // SQLite was faster to say that these cannot be.
                let others = ["sqlite_schema", "sqlite_stat1", "VACUUM", "nothing_like_it", "INTO dbstat"];
                if !others.iter().any(|other| sql.contains(other)) {
                    let is_refused = matches!(&told, ModelError::Failed { source } if source
                        .downcast_ref::<rusqlite::Error>()
                        .is_some_and(|error| error.sqlite_error_code() == Some(ErrorCode::AuthorizationForStatementDenied)));
                    assert!(
                        is_refused && told.to_string().contains("not authorized: "),
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
        for &sql in NOWHERE.iter().chain(IN_THE_LOG).chain(IN_QUERIES) {
            let ways: [fn(&rusqlite::Connection, &str) -> rusqlite::Result<()>; 3] = [
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
        let rows = site.model.query(|connection: &rusqlite::Connection| {
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
    // What only shows afterwards is found before the commit, but this way is passed over until then.
    tx.execute("UPDATE mine SET y = y", []).map(drop)
}

/// Closes and opens again what is in files, and reads everything.
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
