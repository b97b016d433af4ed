//! One page of a stream or of `@all`.

use es_framework::engine::{Direction, Page, Read};
use es_framework::{Mark, Position, StoreError, StoreId, StreamHead, Version};
use tokio_rusqlite::rusqlite::{Connection, OptionalExtension};

use super::line::{Axis, Line, Span};
use super::scan::Scan;
use super::wanted::Wanted;
use crate::connection::errors;
use crate::tables::interned::Names;
use crate::tables::rows::natural;

/// Reads a page, within the caller's transaction.
pub(crate) fn read(
    connection: &Connection,
    names: &mut Names,
    store: StoreId,
    read: &Read,
) -> Result<Page, StoreError> {
    let forward = read.direction == Direction::Forward;
    let mut page = Page::default();
    page.end = true;
    let Some(line) = Line::find(connection, &read.stream)? else {
        page.stream = Some(StreamHead::default());
        page.scanned = if forward { read.after } else { 1 };
        return Ok(page);
    };
    let Line { axis, head, floor, is_sound, .. } = line;
    let low = read.after.max(floor).min(head);
    let high = read.before.map_or(head, |before| before.saturating_sub(1).min(head)).max(low);
    page.head = head;
    page.scanned = if forward { high.max(read.after) } else { low + 1 };
    // Forward, the page ends before the damage, or reports it.
    if read.events == 0 || !forward && high == head {
        line.sound()?;
    }
    page.stream = line.stream_head();
    if read.events == 0 {
        // Only the head was requested.
        page.end = low == high;
        page.scanned = if forward { read.after } else { high + 1 };
        return Ok(page);
    }
    if low < high {
        let span = Span { after: low, upto: high };
        let (wanted, span) = Wanted::of(connection, names, &line, &read.filter, span)?;
        if let Some(span) = span {
            let found = Scan::new(connection, names, store, read, &line, &wanted).run(span)?;
            page.events = found.events;
            page.counted = found.counted;
            page.end = found.end;
            if !page.end || !is_sound {
                page.scanned = found.place;
            }
            if page.end && !is_sound {
                page.head = found.place;
                page.stream = page.stream.map(|_| StreamHead::at(Version::new(found.place)));
            }
            page.mark = found.mark.filter(|mark| mark.position == page.scanned.min(head));
        }
    }
    page.mark = match (axis, forward) {
        (Axis::All, true) if page.mark.is_none() => mark(connection, page.scanned.min(head))?,
        (Axis::All, true) => page.mark,
        _ => None,
    };
    Ok(page)
}

/// Returns the last event at or below a position.
fn mark(connection: &Connection, upto: u64) -> Result<Option<Mark>, StoreError> {
    let upto = Position::new(upto).as_i64();
    let mark: Option<(i64, i32)> = connection
        .prepare_cached("SELECT position, checksum FROM es_event WHERE position <= ?1 ORDER BY position DESC LIMIT 1")
        .and_then(|mut statement| statement.query_row([upto], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(errors::store)?;
    let Some((position, checksum)) = mark else { return Ok(None) };
    Ok(Some(Mark { position: Position::new(natural(position, None)?), checksum: checksum.cast_unsigned() }))
}
