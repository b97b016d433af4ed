//! Shared by the example programs: a table for the terminal, and a path for a file that does not exist yet.
//!
//! The programs are `counter`, `bank`, `courses`, `axum-bank` and `flights`, each in the folder of its name.

use std::fmt::{self, Display, Write as _};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// A table for the terminal, indented by three: numbers are right-aligned, everything else is left-aligned.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table with these headings.
    pub fn new<const COLUMNS: usize>(headings: [&str; COLUMNS]) -> Self {
        Self { rows: vec![headings.map(str::to_owned).to_vec()] }
    }

    /// Adds a row.
    pub fn row<const COLUMNS: usize>(&mut self, cells: [&dyn Display; COLUMNS]) {
        self.rows.push(cells.map(ToString::to_string).to_vec());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut columns = Vec::<Column>::new();
        for (line, row) in self.rows.iter().enumerate() {
            columns.resize_with(columns.len().max(row.len()), || Column { width: 0, right: true });
            for (column, cell) in columns.iter_mut().zip(row) {
                column.width = column.width.max(cell.chars().count());
                // A heading does not determine the alignment of its column.
                column.right &=
                    line == 0 || cell.starts_with(|first: char| first.is_ascii_digit() || "-€".contains(first));
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            for (cell, Column { width, right }) in row.iter().zip(&columns) {
                let gap = if line.is_empty() { "   " } else { "  " };
                if *right { write!(line, "{gap}{cell:>width$}")? } else { write!(line, "{gap}{cell:<width$}")? }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// How a column is shown.
#[derive(Debug)]
struct Column {
    width: usize,
    right: bool,
}

/// A whole number with thousands separators.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A path in the folder for temporary files that does not exist yet.
pub fn fresh_path(name: &str) -> PathBuf {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    std::env::temp_dir().join(format!("{name}-{}-{nanos}.db", std::process::id()))
}

/// An error with its chain of causes, on one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // A transparent error has the same message as its cause.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_widest_cells() {
        let mut table = Table::new(["who", "cents"]);
        table.row([&"alice", &5]);
        table.row([&"bo", &1_250]);
        assert_eq!(table.to_string(), "   who    cents\n   alice      5\n   bo      1250\n");
    }

    #[test]
    fn a_number_is_grouped_by_thousands() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
