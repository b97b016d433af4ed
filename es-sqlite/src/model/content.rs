//! The content of a read model as text, to check the laws of projectors.

use std::fmt::Write as _;

use es_framework::testing::Content;
use tokio_rusqlite::rusqlite::types::ValueRef;
use tokio_rusqlite::rusqlite::{Connection, Result};

use super::{SqliteModel, records};

/// All tables except those of the log and of consumers, by name, with their rows in the order of their text: the order
/// in which rows were written does not count, and neither do indexes.
impl Content for SqliteModel {
    async fn content(&self) -> String {
        self.query(content).await.expect("the tables of the read model can be read")
    }
}

fn content(connection: &Connection) -> Result<String> {
    let mut names = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         AND name NOT LIKE 'es\\_%' ESCAPE '\\' ORDER BY name",
    )?;
    let names = names.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>>>()?;
    let mut text = String::new();
    for name in names.iter().filter(|name| *name != records::TABLE) {
        let mut rows = connection.prepare(&format!("SELECT * FROM \"{}\"", name.replace('"', "\"\"")))?;
        let columns = rows.column_names().join(", ");
        let count = rows.column_count();
        let mut lines = rows
            .query_map([], |row| (0..count).map(|column| Ok(shown(row.get_ref(column)?))).collect::<Result<Vec<_>>>())?
            .collect::<Result<Vec<_>>>()?;
        lines.sort_unstable();
        let _ = writeln!(text, "{name} ({columns})");
        for line in lines {
            let _ = writeln!(text, "  {}", line.join(", "));
        }
    }
    Ok(text)
}

fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(integer) => integer.to_string(),
        ValueRef::Real(real) => format!("{real:?}"),
        ValueRef::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
        ValueRef::Blob(blob) => blob.iter().fold("x".to_owned(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        }),
    }
}
