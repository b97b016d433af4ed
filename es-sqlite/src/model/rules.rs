//! What a read model's statements may do: a list of what is allowed, and a reason for rejecting everything else.

use tokio_rusqlite::rusqlite::hooks::AuthAction;

use crate::model::records;

/// On whose behalf a statement runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The store or the model itself.
    Engine,
    /// A projector, inside its transaction.
    Projector(Home),
    /// A query, which only reads.
    Query,
}

/// Where a read model lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// In the log's file.
    Log,
    /// In a file of its own.
    Own,
}

/// The table of the runner's records, and the view of the checkpoints in it.
const RECORDS: [&str; 2] = [records::TABLE, records::VIEW];

/// Pragmas that only return information, whatever their argument.
const SHOWING: [&str; 16] = [
    "collation_list",
    "compile_options",
    "database_list",
    "foreign_key_check",
    "foreign_key_list",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "module_list",
    "pragma_list",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
];

/// Pragmas that return a setting without an argument, and change it with one.
const SETTINGS: [&str; 29] = [
    "analysis_limit",
    "application_id",
    "auto_vacuum",
    "automatic_index",
    "busy_timeout",
    "cache_size",
    "cache_spill",
    "cell_size_check",
    "data_version",
    "defer_foreign_keys",
    "encoding",
    "foreign_keys",
    "freelist_count",
    "journal_mode",
    "journal_size_limit",
    "locking_mode",
    "max_page_count",
    "mmap_size",
    "page_count",
    "page_size",
    "query_only",
    "recursive_triggers",
    "schema_version",
    "secure_delete",
    "synchronous",
    "temp_store",
    "trusted_schema",
    "user_version",
    "wal_autocheckpoint",
];

/// The virtual table modules that store their data in tables of their own.
const MODULES: [&str; 8] = ["fts3", "fts3tokenize", "fts4", "fts4aux", "fts5", "fts5vocab", "rtree", "rtree_i32"];

/// Functions that do more than compute a value.
const FUNCTIONS: [&str; 2] = ["fts3_tokenizer", "load_extension"];

const TRANSACTION: &str = "a projector cannot begin or end transactions: its runner does, together with the checkpoint";

/// Whether `asker` may do this; the error says why not, and what to do instead.
///
/// `preparing` is whether the statement itself is being prepared, rather than one that it runs internally: full-text
/// tables use savepoints of their own.
pub(super) fn judge(asker: Asker, preparing: bool, action: &AuthAction<'_>) -> Result<(), String> {
    match asker {
        Asker::Engine => Ok(()),
        Asker::Projector(home) => projector(home, preparing, action),
        Asker::Query => query(action),
    }
}

/// Whether this may change the set of tables: what it refers to, or is renamed to, cannot be seen beforehand.
pub(super) fn changes_tables(action: &AuthAction<'_>) -> bool {
    matches!(
        action,
        AuthAction::CreateTable { .. }
            | AuthAction::CreateTempTable { .. }
            | AuthAction::CreateVtable { .. }
            | AuthAction::AlterTable { .. }
    )
}

fn query(action: &AuthAction<'_>) -> Result<(), String> {
    match action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => Ok(()),
        AuthAction::Function { function_name } => function(function_name),
        AuthAction::Pragma { pragma_name, pragma_value } if shows(pragma_name, *pragma_value) => Ok(()),
        AuthAction::Pragma { pragma_name, .. } => Err(pragma(pragma_name, "a query only reads")),
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => {
            Err("a query is one read transaction: it begins before and ends after the closure".to_owned())
        }
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => Err(attach()),
        _ => Err("a query only reads: tables are written by the projector, in `project` or `prepare`".to_owned()),
    }
}

fn projector(home: Home, preparing: bool, action: &AuthAction<'_>) -> Result<(), String> {
    match action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => Ok(()),
        AuthAction::Function { function_name } => function(function_name),
        AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name } => writes(home, table_name),
        AuthAction::CreateTable { table_name: name }
        | AuthAction::CreateTempTable { table_name: name }
        | AuthAction::CreateView { view_name: name }
        | AuthAction::CreateTempView { view_name: name }
        | AuthAction::DropView { view_name: name }
        | AuthAction::DropTempView { view_name: name }
        | AuthAction::AlterTable { table_name: name, .. }
        | AuthAction::DropVtable { table_name: name, .. } => owns(home, name),
        AuthAction::DropTable { table_name: name } | AuthAction::DropTempTable { table_name: name } => {
            writes(home, name)
        }
        AuthAction::CreateIndex { index_name: name, table_name }
        | AuthAction::CreateTempIndex { index_name: name, table_name }
        | AuthAction::DropIndex { index_name: name, table_name }
        | AuthAction::DropTempIndex { index_name: name, table_name }
        | AuthAction::CreateTrigger { trigger_name: name, table_name }
        | AuthAction::CreateTempTrigger { trigger_name: name, table_name }
        | AuthAction::DropTrigger { trigger_name: name, table_name }
        | AuthAction::DropTempTrigger { trigger_name: name, table_name } => {
            owns(home, name).and_then(|()| owns(home, table_name))
        }
        AuthAction::Reindex { index_name } => {
            owns(home, index_name.strip_prefix("sqlite_autoindex_").unwrap_or(index_name))
        }
        AuthAction::CreateVtable { table_name, module_name } if any(&MODULES, module_name) => owns(home, table_name),
        AuthAction::CreateVtable { module_name, .. } => Err(format!(
            "virtual tables of the module `{module_name}` are not allowed; those of {} are",
            MODULES.join(", ")
        )),
        AuthAction::Pragma { pragma_name, pragma_value } => {
            let own = home == Home::Own && any(&["optimize", "user_version"], pragma_name);
            // It applies until the transaction ends.
            let defers = pragma_name.eq_ignore_ascii_case("defer_foreign_keys");
            if own || defers || shows(pragma_name, *pragma_value) {
                return Ok(());
            }
            Err(match home {
                Home::Log => pragma(pragma_name, "the log's file and connection are set up by the store"),
                Home::Own => pragma(pragma_name, "the file and its connection are set up by the read model"),
            })
        }
        AuthAction::Analyze { .. } if home == Home::Own => Ok(()),
        AuthAction::Analyze { .. } => {
            let reason = "ANALYZE changes how SQLite runs the store's own statements; a read model in a file of its own \
                          (`SqliteModel::open`) may use it";
            Err(reason.to_owned())
        }
        AuthAction::Savepoint { .. } if !preparing => Ok(()),
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => Err(TRANSACTION.to_owned()),
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => Err(attach()),
        _ => Err("a projector reads, writes tables of its own, and creates, alters and drops them".to_owned()),
    }
}

/// Checks that a projector may change the rows of a table, or drop it.
fn writes(home: Home, table: &str) -> Result<(), String> {
    // What `CREATE`, `ALTER` and `DROP` write; SQLite itself protects it from other statements. The last one counts
    // AUTOINCREMENT.
    let schema = ["sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema", "sqlite_sequence"];
    if any(&schema, table) || home == Home::Own && begins(table, "sqlite_stat") {
        return Ok(());
    }
    if begins(table, "sqlite_") {
        return Err(format!("`{table}` belongs to SQLite; a read model writes tables of its own"));
    }
    owns(home, table)
}

/// Checks that a projector may use this name.
fn owns(home: Home, name: &str) -> Result<(), String> {
    if any(&RECORDS, name) {
        return Err(format!("`{name}` is written by the runner of the projection, together with what it projects"));
    }
    if home == Home::Log && (begins(name, "es_") || name.eq_ignore_ascii_case("log")) {
        return Err(format!(
            "`{name}` belongs to the store; a read model writes tables of its own, with names that do not begin with `es_`"
        ));
    }
    Ok(())
}

fn function(name: &str) -> Result<(), String> {
    if any(&FUNCTIONS, name) {
        return Err(format!("the function `{name}` does more than compute a value"));
    }
    Ok(())
}

fn shows(pragma: &str, value: Option<&str>) -> bool {
    any(&SHOWING, pragma) || value.is_none() && any(&SETTINGS, pragma)
}

fn pragma(name: &str, why: &str) -> String {
    let instead = if name.eq_ignore_ascii_case("user_version") {
        "keep a version of your own tables in a table of your own"
    } else {
        "pragmas that only show something are allowed"
    };
    format!("`PRAGMA {name}` is not: {why}; {instead}")
}

fn attach() -> String {
    "a read model works on its own file only; open another one with a connection of your own".to_owned()
}

fn begins(name: &str, with: &str) -> bool {
    name.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with))
}

fn any(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}
