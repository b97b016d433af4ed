//! The statements of a read model's transaction.

use es_framework::{ModelError, ReadModel as _};
use es_sqlite::rusqlite;
use es_sqlite::{SqliteModel, SqliteStore};

use crate::read_models::deposit;

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

/// Returns the contents of table `t` after running some statements in one of the two ways.
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
        // From a buffer that is overwritten: a statement is not identified by the address of its text.
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

/// Bypassing the connection's cache (`SqliteTx::run`) changes nothing except the time it takes.
#[tokio::test]
async fn statements_kept_at_hand_do_what_others_do() {
    const INSERT: &str = "INSERT INTO t (a, b) VALUES (:a, :b)";
    const UPDATE: &str = "UPDATE t SET b = b + 1 WHERE a > :a";
    let statements: &[(&str, &[(&str, i64)])] = &[
        (INSERT, &[(":a", 0)]),
        ("CREATE TABLE t (a INTEGER PRIMARY KEY, b INTEGER)", &[]),
        (INSERT, &[(":a", 1), (":b", 10)]),
        // A parameter that is not given is null, not its previous value.
        (INSERT, &[(":a", 2)]),
        (INSERT, &[(":b", 30)]),
        // A failed statement runs again.
        (INSERT, &[(":a", 1), (":b", 11)]),
        (INSERT, &[(":none", 1)]),
        ("SELECT a FROM t", &[]),
        ("SELECT a FROM t", &[]),
        ("COMMIT", &[]),
        ("COMMIT", &[]),
        (UPDATE, &[(":a", 1)]),
        (INSERT, &[(":a", 4), (":b", 40)]),
        // The tables change underneath it.
        ("ALTER TABLE t ADD COLUMN c", &[]),
        (INSERT, &[(":a", 5), (":b", 50)]),
        (UPDATE, &[(":a", 4)]),
        // More statements than are kept, round after round.
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
