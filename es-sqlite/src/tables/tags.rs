//! Tags and their numbers: the table `es_tag`, and the lists of numbers in rows of events.

use es_framework::{MAX_TAGS, Position, StoreError, Tag};
use tokio_rusqlite::rusqlite::types::{Value, ValueRef};
use tokio_rusqlite::rusqlite::{Connection, OptionalExtension, Row};

use crate::connection::errors;
use crate::tables::row_sum::RowSum;

/// The first name that is not before the requested one: the name itself, or the next one.
const FROM: &str = "SELECT id, name, checksum FROM es_tag WHERE name >= ?1 ORDER BY name LIMIT 1";
/// The name before it.
const BEFORE: &str = "SELECT id, name, checksum FROM es_tag WHERE name < ?1 ORDER BY name DESC LIMIT 1";

/// Returns the number of a tag; [`None`] if no event ever had it.
///
/// An entry of the index over names is trusted only if the row it leads to confirms it, and if a name is not found, the
/// entries on both sides are checked too; see [`streams::number`](super::streams::number). It is stricter than that one:
/// a tag that is taken for new would make a condition hold that does not.
pub(crate) fn number(connection: &Connection, tag: &Tag) -> Result<Option<i64>, StoreError> {
    match entry(connection, FROM, tag)? {
        None => entry(connection, BEFORE, tag),
        found => Ok(found),
    }
}

/// The number in an entry; [`None`] if it belongs to another tag.
fn entry(connection: &Connection, sql: &str, tag: &Tag) -> Result<Option<i64>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(errors::store)?;
    let mut rows = statement.query([tag.as_str()]).map_err(errors::store)?;
    let Some(row) = rows.next().map_err(errors::store)? else { return Ok(None) };
    let id: i64 = row.get(0).map_err(errors::store)?;
    let is_asked_for = matches!(row.get_ref(1), Ok(ValueRef::Text(name)) if name == tag.as_str().as_bytes());
    if is_whole(row, id) {
        return Ok(is_asked_for.then_some(id));
    }
    // The entry or its row is damaged. Whichever it is, the name that was there may have been this one.
    Err(errors::damaged(
        None,
        format!("tag {tag} cannot be looked up: tag number {id} is damaged, or the index over names"),
    ))
}

fn is_whole(row: &Row<'_>, id: i64) -> bool {
    let name = row.get_ref(1).ok().and_then(|value| value.as_str().ok());
    let (Some(name), Ok(checksum)) = (name, row.get::<_, i32>(2)) else { return false };
    sum(id, name).stored() == checksum
}

/// Assigns a number to a tag, the one after `last`; [`None`] if that has to be looked up.
pub(crate) fn add(connection: &Connection, tag: &Tag, last: Option<i64>) -> Result<i64, StoreError> {
    let number = match last {
        Some(last) => last + 1,
        None => connection
            .prepare_cached("SELECT coalesce(max(id), 0) + 1 FROM es_tag")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(errors::store)?,
    };
    connection
        .prepare_cached("INSERT INTO es_tag (id, name, checksum) VALUES (?1, ?2, ?3)")
        .and_then(|mut statement| statement.execute((number, tag.as_str(), sum(number, tag.as_str()).stored())))
        .map_err(errors::store)?;
    Ok(number)
}

/// Returns the tag with a number, for the event at a position.
pub(crate) fn read(connection: &Connection, id: i64, at: Position) -> Result<Tag, StoreError> {
    let damaged = |reason| errors::damaged(Some(at), format!("tag number {id}{reason}"));
    let (name, checksum) = connection
        .prepare_cached("SELECT name, checksum FROM es_tag WHERE id = ?1")
        .and_then(|mut statement| {
            statement.query_row([id], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i32>(1)?))).optional()
        })
        .map_err(|error| errors::store_at(at, error))?
        .ok_or_else(|| damaged(" is not known"))?;
    if sum(id, &name).stored() != checksum {
        return Err(damaged(": the checksum of its row does not match"));
    }
    Tag::new(name).map_err(|_| damaged(" has a text that is not a tag"))
}

fn sum(id: i64, name: &str) -> RowSum {
    RowSum::of("tag").integer(id).text(name)
}

/// Formats the numbers of an event's tags as they are stored: nothing for none, an integer for one, and otherwise a
/// text of decimal numbers with commas in between, so that plain SQL can take it apart.
pub(crate) fn list(numbers: &[i64]) -> Value {
    match numbers {
        [] => Value::Null,
        [number] => Value::Integer(*number),
        numbers => Value::Text(numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
    }
}

/// Reads a list of numbers: each is given to `each`, in order. Returns whether the list is well-formed.
pub(crate) fn each_number<E>(
    list: ValueRef<'_>,
    mut each: impl FnMut(i64) -> Result<(), E>,
) -> Result<Result<(), E>, &'static str> {
    const DAMAGED: &str = "the list of tags is damaged";
    match list {
        ValueRef::Null => Ok(Ok(())),
        ValueRef::Integer(number) => Ok(each(number)),
        ValueRef::Text(text) => {
            let text = std::str::from_utf8(text).map_err(|_| DAMAGED)?;
            let mut count = 0;
            for number in text.split(',') {
                count += 1;
                // Only what `list` writes: `07` or `+7` is not 7.
                let canonical = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
                let number: i64 = number.parse().ok().filter(|_| canonical && count <= MAX_TAGS).ok_or(DAMAGED)?;
                if let Err(error) = each(number) {
                    return Ok(Err(error));
                }
            }
            if count > 1 { Ok(Ok(())) } else { Err(DAMAGED) }
        }
        _ => Err(DAMAGED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(list: ValueRef<'_>) -> Option<Vec<i64>> {
        let mut numbers = Vec::new();
        let read = each_number(list, |number| {
            numbers.push(number);
            Ok::<_, ()>(())
        });
        read.is_ok().then_some(numbers)
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        for written in [&[][..], &[7], &[7, 1], &[i64::MAX, 1, 20, 300], &(1..=32).collect::<Vec<_>>()] {
            assert_eq!(numbers(ValueRef::from(&list(written))).unwrap(), written);
        }
        assert_eq!(list(&[3, 12]), Value::Text("3,12".to_owned()));
        assert_eq!(list(&[3]), Value::Integer(3));
        let long = (1..=33).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        for damaged in ["", "7", "7,", ",7", "7,07", "7,+1", "7, 1", "7;1", "7,99999999999999999999", &long] {
            assert_eq!(numbers(ValueRef::Text(damaged.as_bytes())), None, "{damaged}");
        }
        assert_eq!(numbers(ValueRef::Blob(b"1,2")), None);
    }

    #[test]
    fn a_name_is_found_by_an_index() {
        let connection = crate::opening::open::memory(1 << 20).unwrap();
        crate::tables::schema::add_tags(&connection).unwrap();
        for sql in [FROM, BEFORE] {
            let explain = format!("EXPLAIN QUERY PLAN {sql}");
            let plan = connection.query_row(&explain, ["a:1"], |row| row.get::<_, String>(3)).unwrap();
            assert!(plan.starts_with("SEARCH es_tag USING INDEX"), "{plan}");
        }
    }
}
