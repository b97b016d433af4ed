//! One page of a stream or of `@all`.
//!
//! A page is read by single statements, without a transaction: rows are only ever added, so a statement that runs later
//! sees everything that an earlier one saw, and what it sees beyond that is left out.

use std::sync::atomic::{AtomicU32, Ordering};

use es_framework::engine::{Direction, PAGE_EVENTS, PAGE_SCAN, Page, Read};
use es_framework::{Mark, Position, Query, StoreError, StoreId, StoredEvent, StreamHead};
use futures_util::future::join;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::wanted::{Axis, Span, Wanted};
use crate::connection::errors::{self, Failure};
use crate::connection::session::{Session, Sql};
use crate::connection::values::{count, natural, signed};
use crate::tables::log::LogHead;
use crate::tables::names::Names;
use crate::tables::queries::criteria;
use crate::tables::rows::{self, COLUMNS, HEADER, Header, column};
use crate::tables::statements::{self, SIZE, Statements};
use crate::tables::streams;

/// Metadata that is read to evaluate a filter, at most, in bytes.
const METADATA: i64 = 16 << 20;

/// What every page needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) session: &'a Session,
    pub(crate) statements: &'a Statements,
    pub(crate) names: &'a Names,
    pub(crate) store: StoreId,
    /// A position that the log is known to have reached.
    pub(crate) seen: Position,
    pub(crate) sizes: &'a Sizes,
}

/// Whether events are small, so that a page can be read without adding up their sizes.
///
/// After a page with a large one, this many pages are added up: large events come in runs.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    large: AtomicU32,
}

impl Sizes {
    const PAGES: u32 = 16;

    fn are_small(&self) -> bool {
        self.large.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
    }

    fn found_large(&self) {
        self.large.store(Self::PAGES, Ordering::Relaxed);
    }
}

/// The sequence that a page is read from, and its end.
#[derive(Debug)]
enum Line {
    All(LogHead),
    Stream(Option<streams::Found>),
}

impl Line {
    fn head(&self) -> u64 {
        match self {
            Self::All(head) => head.position.get(),
            Self::Stream(found) => found.map_or(0, |found| found.version.get()),
        }
    }

    /// The place of an event.
    fn place(&self, header: &Header) -> u64 {
        match self {
            Self::All(_) => header.position.get(),
            Self::Stream(_) => header.version.get(),
        }
    }

    /// Whether there may be gaps between places.
    fn has_gaps(&self) -> bool {
        matches!(self, Self::All(LogHead { gaps: true, .. }))
    }
}

/// The rows of a page, and how far they reach.
struct Rows {
    rows: Vec<Row>,
    /// Whether there may be more rows after the last one.
    is_full: bool,
}

impl Context<'_> {
    /// Reads a page.
    pub(crate) async fn page(&self, read: &Read) -> Result<Page, Failure> {
        let forward = read.direction == Direction::Forward;
        if read.filter.is_empty() && forward && read.events > 0 {
            // Both are sent at once. Rows beyond the head that the first one saw are left out.
            let span =
                Span { after: read.after, upto: read.before.map_or(u64::MAX, |before| before.saturating_sub(1)) };
            let (line, rows) = join(self.line(read), self.rows(read, span)).await;
            let line = line?;
            let Some((mut page, span)) = begin(read, &line) else { return Ok(nothing(read, &line)) };
            self.fill(read, &line, &mut page, span, span, rows?, true).await?;
            return self.marked(read, &line, page).await;
        }
        let line = self.line(read).await?;
        let Some((mut page, span)) = begin(read, &line) else {
            let page = nothing(read, &line);
            return self.marked(read, &line, page).await;
        };
        let axis = match &line {
            Line::All(_) => Axis::All,
            Line::Stream(Some(found)) => Axis::Stream(&read.stream, found.number),
            Line::Stream(None) => return Ok(page),
        };
        let mut narrow = span;
        let wanted = Wanted::of(&read.filter, axis, &mut narrow, 5, self.session, self.statements).await?;
        if let Some(mut wanted) = wanted {
            if read.filter.is_empty() {
                let rows = self.rows(read, span).await?;
                self.fill(read, &line, &mut page, span, span, rows, true).await?;
            } else {
                let most = PAGE_SCAN as u64;
                let window = if let Some(query) = wanted.query.take() {
                    self.matching(read, &query, narrow, &mut wanted).await?
                } else if forward {
                    Span { upto: narrow.upto.min(narrow.after.saturating_add(most)), ..narrow }
                } else {
                    Span { after: narrow.after.max(narrow.upto.saturating_sub(most)), ..narrow }
                };
                // Everything outside the narrowed span was rejected by its bounds.
                let reached = if forward { window.upto == narrow.upto } else { window.after == narrow.after };
                let scanned = if reached { span } else { window };
                self.filtered(read, &line, &mut page, (scanned, window), axis, &wanted).await?;
            }
        }
        self.marked(read, &line, page).await
    }

    /// Finds the events that match a query by the index over tags and types, and makes them a condition. Returns the
    /// part of the span in which these are all.
    async fn matching(&self, read: &Read, query: &Query, span: Span, wanted: &mut Wanted) -> Result<Span, Failure> {
        let backward = read.direction == Direction::Backward;
        // If other clauses reject some of them, the page is not full, and continues after the last.
        let most = read.events.min(PAGE_EVENTS);
        let limit = i32::try_from(most).unwrap_or(i32::MAX);
        let scan = i32::try_from(PAGE_SCAN).unwrap_or(i32::MAX);
        let (after, before) = (signed(span.after), signed(span.upto.saturating_add(1)));
        let params: [&(dyn ToSql + Sync); 6] = [&criteria(query)?, &after, &before, &limit, &scan, &backward];
        let rows = self.session.query(&self.statements.matching, &params).await?;
        let row = rows.first().ok_or_else(|| errors::internal("a query has no answer"))?;
        let (positions, covered): (Vec<i64>, Option<i64>) = (column(row, 0, None)?, column(row, 1, None)?);
        let last = if positions.len() >= most { positions.last().copied() } else { covered };
        wanted.only(positions, 5);
        let Some(last) = last else { return Ok(span) };
        let last = natural(last, None)?;
        Ok(if backward { Span { after: last.saturating_sub(1), ..span } } else { Span { upto: last, ..span } })
    }

    async fn line(&self, read: &Read) -> Result<Line, Failure> {
        if read.stream.is_all() {
            let head = LogHead::read(self.session, self.statements).await?;
            head.check(self.store, self.seen)?;
            return Ok(Line::All(head));
        }
        Ok(Line::Stream(streams::find(self.session, self.statements, self.store, &read.stream).await?))
    }

    /// Reads the rows of a span, whatever they are.
    async fn rows(&self, read: &Read, span: Span) -> Result<Rows, Failure> {
        let (limit, bytes) = (count(read.events.min(PAGE_SCAN)), count(read.bytes));
        let (after, before) = (signed(span.after), signed(span.upto.saturating_add(1)));
        let [forward, backward] = if read.stream.is_all() { &self.statements.all } else { &self.statements.stream };
        let sql = if read.direction == Direction::Forward { forward } else { backward };
        let stream = read.stream.as_str();
        let ask = async |sql: &Sql, bytes: i64| {
            let params: [&(dyn ToSql + Sync); 5] = [&limit, &bytes, &after, &before, &stream];
            let params = params.get(..if read.stream.is_all() { 4 } else { 5 }).unwrap_or_default();
            self.session.query(sql, params).await
        };
        if self.sizes.are_small() {
            let rows = ask(&sql.small, bytes / limit.max(1)).await?;
            if !rows.iter().any(is_left_out) {
                return Rows::of(rows, limit);
            }
            self.sizes.found_large();
        }
        Rows::of(ask(&sql.bounded, bytes).await?, limit)
    }

    /// Reads the rows of a window that pass a filter.
    async fn filtered(
        &self,
        read: &Read,
        line: &Line,
        page: &mut Page,
        (scanned, window): (Span, Span),
        axis: Axis<'_>,
        wanted: &Wanted,
    ) -> Result<(), Failure> {
        let (place, of_stream) = match axis {
            Axis::All => ("position", String::new()),
            Axis::Stream(_, number) => ("version", format!("stream = {number} AND ")),
        };
        let order = if read.direction == Direction::Forward { "" } else { " DESC" };
        let condition = format!("{of_stream}{place} > $3 AND {place} < $4{}", wanted.condition);
        let (after, before) = (signed(window.after), signed(window.upto.saturating_add(1)));
        let types = [&[Type::INT8, Type::INT8, Type::INT8, Type::INT8][..], &wanted.types].concat();
        let ask = async |columns: &str, size: &str, limit: i64, bytes: i64| {
            let sql = statements::Rows { condition: &condition, place, order }.bounded(columns, size);
            let sql = self.statements.schema.qualify(&sql);
            let mut params: Vec<&(dyn ToSql + Sync)> = vec![&limit, &bytes, &after, &before];
            params.extend(wanted.parameters.iter().map(|parameter| &**parameter as &(dyn ToSql + Sync)));
            Rows::of(self.session.once(&sql, &types, &params).await?, limit)
        };
        let most = count(read.events.min(PAGE_SCAN));
        if wanted.left.is_empty() {
            let rows = ask(COLUMNS, SIZE, most, count(read.bytes)).await?;
            return self.fill(read, line, page, scanned, window, rows, false).await;
        }
        // The rest is evaluated here, before any payload is read.
        let headers = ask(HEADER, "coalesce(octet_length(metadata), 0)", count(PAGE_SCAN), METADATA).await?;
        let seen: Vec<Header> = headers.rows.iter().map(Header::of).collect::<Result<_, _>>()?;
        let names = self.names.of(numbers(&seen), self.session, self.statements).await?;
        let (mut positions, mut last) = (Vec::new(), None);
        let mut is_full = headers.is_full;
        for (row, header) in headers.rows.iter().zip(&seen) {
            if header.passes(&wanted.left, row, &names)? {
                if positions.len() >= read.events.min(PAGE_SCAN) {
                    is_full = true;
                    break;
                }
                positions.push(header.position.as_i64());
            }
            last = Some(*header);
        }
        let rows = if positions.is_empty() {
            Rows { rows: Vec::new(), is_full: false }
        } else {
            let sql = statements::Rows { condition: "position = ANY($3)", place, order }.bounded(COLUMNS, SIZE);
            let sql = self.statements.schema.qualify(&sql);
            let limit = count(positions.len());
            let types = [Type::INT8, Type::INT8, Type::INT8_ARRAY];
            let found = self.session.once(&sql, &types, &[&limit, &count(read.bytes), &positions]).await?;
            let is_short = found.len() < positions.len();
            Rows { rows: found, is_full: is_short }
        };
        let cut = rows.is_full;
        self.fill(read, line, page, scanned, window, rows, false).await?;
        if !cut
            && is_full
            && let Some(last) = last
        {
            // All headers up to the last one were evaluated.
            (page.scanned, page.end) = (line.place(&last), false);
        }
        Ok(())
    }

    /// Turns rows into the events of a page. If `each` is set, they are all rows of the window.
    #[expect(clippy::too_many_arguments, reason = "what was asked, where, and what came")]
    async fn fill(
        &self,
        read: &Read,
        line: &Line,
        page: &mut Page,
        scanned: Span,
        window: Span,
        Rows { rows, mut is_full }: Rows,
        each: bool,
    ) -> Result<(), Failure> {
        let forward = read.direction == Direction::Forward;
        let headers: Result<Vec<Header>, StoreError> = rows.iter().map(Header::of).collect();
        let headers = headers?;
        let names = self.names.of(numbers(&headers), self.session, self.statements).await?;
        let mut buffer = rows::buffer(read.events.min(rows.len()), read.bytes);
        let mut last = if forward { window.after } else { window.upto.saturating_add(1) };
        let contiguous = each && !line.has_gaps();
        page.events.reserve(rows.len());
        for (row, header) in rows.iter().zip(&headers) {
            let place = line.place(header);
            if forward && place > page.head {
                // Written after the head was read.
                is_full = false;
                break;
            }
            let next = if forward { last.checked_add(1) } else { last.checked_sub(1) };
            let checked = if contiguous && Some(place) != next {
                Err(missing(read, next.unwrap_or_default()))
            } else {
                header.event(row, &names, self.store, &mut buffer)
            };
            match checked {
                Ok(event) => page.events.push(event),
                // The next page reports it.
                Err(StoreError::Corrupt { .. }) if !page.events.is_empty() => {
                    (page.scanned, page.end) = (last, false);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            last = place;
        }
        let edge = if forward { window.upto } else { window.after + 1 };
        if contiguous && !is_full && last != edge {
            if page.events.is_empty() {
                let next = if forward { last + 1 } else { last.saturating_sub(1) };
                return Err(missing(read, next).into());
            }
            is_full = true;
        }
        let (end, whole) =
            if forward { (scanned.upto, page.scanned.min(page.head)) } else { (scanned.after + 1, page.scanned) };
        if is_full {
            (page.scanned, page.end) = (last, last == whole);
        } else if end != whole {
            (page.scanned, page.end) = (end, false);
        }
        Ok(())
    }

    /// Adds the last event up to which a forward page of `@all` was scanned.
    async fn marked(&self, read: &Read, line: &Line, mut page: Page) -> Result<Page, Failure> {
        let Line::All(head) = line else { return Ok(page) };
        if read.direction == Direction::Backward {
            return Ok(page);
        }
        let upto = Position::new(page.scanned).min(head.position);
        let at_hand = page.events.last().map(StoredEvent::mark).into_iter().chain(head.mark);
        page.mark = at_hand.into_iter().find(|mark| mark.position == upto);
        if page.mark.is_none() && head.mark.is_some_and(|mark| mark.position <= upto) {
            page.mark = head.mark;
        }
        if page.mark.is_none() && upto > Position::ZERO {
            let rows = self.session.query(&self.statements.mark, &[&upto.as_i64()]).await?;
            if let Some(row) = rows.first() {
                let position = Position::new(natural(column(row, 0, None)?, None)?);
                page.mark = Some(Mark { position, checksum: column::<i32>(row, 1, None)?.cast_unsigned() });
            }
        }
        Ok(page)
    }
}

/// The mark of an event.
trait Marked {
    fn mark(&self) -> Mark;
}

impl Marked for StoredEvent {
    fn mark(&self) -> Mark {
        Mark { position: self.position, checksum: self.checksum }
    }
}

impl Rows {
    /// The last column of each row tells whether another one follows that was left out for its bytes.
    fn of(rows: Vec<Row>, limit: i64) -> Result<Self, Failure> {
        let follows = match rows.last() {
            Some(row) => column(row, row.len() - 1, None)?,
            None => false,
        };
        let is_full = follows || count(rows.len()) >= limit;
        Ok(Self { rows, is_full })
    }
}

/// Whether the content of a row was too large to be selected.
fn is_left_out(row: &Row) -> bool {
    matches!(row.try_get::<_, Option<&[u8]>>(10), Ok(None))
}

fn numbers(headers: &[Header]) -> impl Iterator<Item = (i64, i32)> + Send {
    headers.iter().map(|header| (header.stream, header.event_type))
}

/// An empty page that is the end, and the span that has to be read for it; [`None`] if there is nothing to read.
fn begin(read: &Read, line: &Line) -> Option<(Page, Span)> {
    let (page, span) = outline(read, line);
    (read.events > 0 && span.after < span.upto).then_some((page, span))
}

/// The page of a read that has no rows: only the head was requested, or nothing lies between the bounds.
fn nothing(read: &Read, line: &Line) -> Page {
    let (mut page, span) = outline(read, line);
    if read.events == 0 {
        page.end = span.after >= span.upto;
        page.scanned = if read.direction == Direction::Forward { read.after } else { span.upto + 1 };
    }
    page
}

fn outline(read: &Read, line: &Line) -> (Page, Span) {
    let head = line.head();
    let mut page = match line {
        Line::All(head) => Page::of_all(head.position),
        Line::Stream(found) => {
            Page::of_stream(found.map_or(StreamHead::default(), |found| StreamHead::at(found.version)))
        }
    };
    let after = read.after.min(head);
    let upto = read.before.map_or(head, |before| before.saturating_sub(1).min(head)).max(after);
    page.end = true;
    page.scanned = if read.direction == Direction::Forward { upto.max(read.after) } else { after + 1 };
    (page, Span { after, upto })
}

/// The error for a place that should have a row.
fn missing(read: &Read, place: u64) -> StoreError {
    if read.stream.is_all() {
        errors::damaged(Some(Position::new(place)), "there is no event, although the log goes on")
    } else {
        errors::damaged(None, format!("version {place} of stream {} is missing", read.stream))
    }
}
