//! The statements that are executed often, written once for the schema of a store.

use tokio_postgres::types::Type;

use crate::connection::session::Sql;
use crate::tables::rows::COLUMNS;
use crate::tables::schema::Schema;

/// The statements of a store.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) schema: Schema,
    /// The end of the log.
    pub(crate) head: Sql,
    /// Locks the writer's row; no parameters.
    pub(crate) lock: Sql,
    /// The end of a stream, by its name.
    pub(crate) stream_head: Sql,
    /// A page of `@all`, forward and backward.
    pub(crate) all: [PageSql; 2],
    /// A page of a stream, forward and backward.
    pub(crate) stream: [PageSql; 2],
    /// The last event at or below a position.
    pub(crate) mark: Sql,
    /// The positions of events that match a query, and the first one for each of some conditions.
    pub(crate) matching: Sql,
    pub(crate) first_matches: Sql,
    /// The last place at or below a position and a time.
    pub(crate) last_upto: Sql,
    /// Names of streams and types by their numbers.
    pub(crate) streams_by_id: Sql,
    pub(crate) types_by_id: Sql,
    /// What the writer asks for before it judges.
    pub(crate) streams_by_name: Sql,
    pub(crate) types_by_name: Sql,
    pub(crate) events_by_id: Sql,
    pub(crate) commands_by_key: Sql,
    /// The second one locks them.
    pub(crate) cells_by_key: [Sql; 2],
    /// The streams that were written after a position.
    pub(crate) written_after: Sql,
    pub(crate) append: Sql,
    /// Position and checksum of the events at some positions.
    pub(crate) sums_at: Sql,
    pub(crate) notify: Sql,
    pub(crate) cell: Sql,
    /// The existing cells between two keys, and after a third.
    pub(crate) cells: Sql,
    pub(crate) cell_insert: Sql,
    pub(crate) cell_update: Sql,
    pub(crate) cell_revive: Sql,
    pub(crate) snapshot: Sql,
    pub(crate) snapshot_save: Sql,
}

impl Statements {
    pub(crate) fn new(schema: Schema) -> Self {
        let sql = |text: &str, types: &[Type]| Sql::new(schema.qualify(text), types);
        let page = |place: &str, condition: &str, types: &[Type]| {
            [true, false].map(|forward| {
                let rows = Rows { condition, place, order: if forward { "" } else { " DESC" } };
                PageSql { small: sql(&rows.small(), types), bounded: sql(&rows.bounded(COLUMNS, SIZE), types) }
            })
        };
        let all = "position > $3 AND position < $4";
        let stream = "stream = (SELECT id FROM {es}.es_stream WHERE name = $5) AND version > $3 AND version < $4";
        Self {
            head: sql(
                "SELECT w.store_id, w.format, w.generation, w.position_floor, w.time_floor, w.write_requires,
                     w.checksum, e.position, e.time, e.checksum,
                     (SELECT max(id) FROM {es}.es_stream), (SELECT max(id) FROM {es}.es_event_type)
                 FROM {es}.es_writer w LEFT JOIN LATERAL (
                     SELECT position, time, checksum FROM {es}.es_event ORDER BY position DESC LIMIT 1
                 ) e ON true",
                &[],
            ),
            lock: sql("SELECT FROM {es}.es_writer FOR UPDATE", &[]),
            stream_head: sql(
                "SELECT w.store_id, w.format, s.id, s.category, s.checksum, e.version
                 FROM {es}.es_writer w LEFT JOIN {es}.es_stream s ON s.name = $1 LEFT JOIN LATERAL (
                     SELECT version FROM {es}.es_event WHERE stream = s.id ORDER BY version DESC LIMIT 1
                 ) e ON true",
                &[Type::TEXT],
            ),
            all: page("position", all, &PAGE),
            stream: page("version", stream, &[&PAGE[..], &[Type::TEXT]].concat()),
            mark: sql(
                "SELECT position, checksum FROM {es}.es_event WHERE position <= $1 ORDER BY position DESC LIMIT 1",
                &[Type::INT8],
            ),
            matching: sql(
                "SELECT positions, covered FROM {es}.es_matching($1::jsonb, $2, $3, $4, $5, $6)",
                &[Type::TEXT, Type::INT8, Type::INT8, Type::INT4, Type::INT4, Type::BOOL],
            ),
            first_matches: sql(
                "SELECT {es}.es_first_match(c.query::jsonb, c.after)
                 FROM unnest($1, $2) WITH ORDINALITY AS c (query, after, n) ORDER BY n",
                &[Type::TEXT_ARRAY, Type::INT8_ARRAY],
            ),
            last_upto: sql(
                "SELECT {es}.es_last_upto($1, $2, $3, $4, $5)",
                &[Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::INT8],
            ),
            streams_by_id: sql(
                "SELECT id, name, category, checksum FROM {es}.es_stream WHERE id = ANY($1)",
                &[Type::INT8_ARRAY],
            ),
            types_by_id: sql(
                "SELECT id, name, schema_version, codec, shape, checksum FROM {es}.es_event_type WHERE id = ANY($1)",
                &[Type::INT4_ARRAY],
            ),
            streams_by_name: sql(
                "SELECT s.name, s.id, s.category, s.checksum, e.version
                 FROM {es}.es_stream s LEFT JOIN LATERAL (
                     SELECT version FROM {es}.es_event WHERE stream = s.id ORDER BY version DESC LIMIT 1
                 ) e ON true WHERE s.name = ANY($1)",
                &[Type::TEXT_ARRAY],
            ),
            types_by_name: sql(
                "SELECT id, name, schema_version, codec, shape, checksum FROM {es}.es_event_type WHERE name = ANY($1)",
                &[Type::TEXT_ARRAY],
            ),
            events_by_id: sql(
                &format!(
                    "SELECT {} FROM unnest($1, $2, $3) AS q (name, id, id_text)
                     JOIN {{es}}.es_stream s ON s.name = q.name
                     JOIN {{es}}.es_event e ON e.stream = s.id AND e.id = q.id
                     UNION ALL
                     SELECT {} FROM unnest($1, $2, $3) AS q (name, id, id_text)
                     JOIN {{es}}.es_stream s ON s.name = q.name
                     JOIN {{es}}.es_event e ON e.stream = s.id AND e.id_text = q.id_text",
                    prefixed(COLUMNS),
                    prefixed(COLUMNS)
                ),
                &[Type::TEXT_ARRAY, Type::UUID_ARRAY, Type::TEXT_ARRAY],
            ),
            commands_by_key: sql(
                "SELECT key, fingerprint, streams, known, position, time, clock_behind, checksum
                 FROM {es}.es_command WHERE key = ANY($1)",
                &[Type::TEXT_ARRAY],
            ),
            cells_by_key: ["", " ORDER BY key FOR UPDATE"].map(|lock| {
                let select = "SELECT revision, value, checksum, key FROM {es}.es_cell WHERE key = ANY($1)";
                sql(&format!("{select}{lock}"), &[Type::TEXT_ARRAY])
            }),
            written_after: sql(
                "SELECT s.name, s.id, max(e.version), count(*)
                 FROM (
                     SELECT stream, version FROM {es}.es_event WHERE position > $1 ORDER BY position LIMIT $2
                 ) e JOIN {es}.es_stream s ON s.id = e.stream GROUP BY s.id, s.name",
                &[Type::INT8, Type::INT8],
            ),
            append: sql(&format!("SELECT {{es}}.es_append({})", parameters(APPEND.len())), &APPEND),
            sums_at: sql("SELECT position, checksum FROM {es}.es_event WHERE position = ANY($1)", &[Type::INT8_ARRAY]),
            notify: sql("SELECT pg_notify($1, $2)", &[Type::TEXT, Type::TEXT]),
            cell: sql("SELECT revision, value, checksum FROM {es}.es_cell WHERE key = $1", &[Type::TEXT]),
            cells: sql(
                "SELECT revision, value, checksum, key FROM {es}.es_cell
                 WHERE key >= $1 AND key > $2 AND key <= $3 AND value IS NOT NULL ORDER BY key LIMIT $4",
                &[Type::TEXT, Type::TEXT, Type::TEXT, Type::INT8],
            ),
            cell_insert: sql(
                "INSERT INTO {es}.es_cell (key, revision, value, checksum) VALUES ($1, 1, $2, $3)
                 ON CONFLICT (key) DO NOTHING RETURNING revision",
                &[Type::TEXT, Type::BYTEA, Type::INT4],
            ),
            cell_update: sql(
                "UPDATE {es}.es_cell SET revision = $2 + 1, value = $3, checksum = $4
                 WHERE key = $1 AND revision = $2 AND value IS NOT NULL RETURNING revision",
                &[Type::TEXT, Type::INT8, Type::BYTEA, Type::INT4],
            ),
            cell_revive: sql(
                "UPDATE {es}.es_cell SET revision = $2 + 1, value = $3, checksum = $4
                 WHERE key = $1 AND revision = $2 AND value IS NULL RETURNING revision",
                &[Type::TEXT, Type::INT8, Type::BYTEA, Type::INT4],
            ),
            snapshot: sql(
                "SELECT at, fingerprint, time, state, checksum FROM {es}.es_snapshot WHERE stream = $1 AND name = $2",
                &[Type::TEXT, Type::TEXT],
            ),
            snapshot_save: sql(
                "WITH log AS (
                     SELECT coalesce(CASE WHEN $1 = '@all' THEN (
                         SELECT greatest(e.position, w.position_floor) FROM {es}.es_writer w LEFT JOIN LATERAL (
                             SELECT position FROM {es}.es_event ORDER BY position DESC LIMIT 1
                         ) e ON true
                     ) ELSE (
                         SELECT version FROM {es}.es_event WHERE stream = (
                             SELECT id FROM {es}.es_stream WHERE name = $1
                         ) ORDER BY version DESC LIMIT 1
                     ) END, 0) AS ends_at
                 ), saved AS (
                     INSERT INTO {es}.es_snapshot AS s (stream, name, at, fingerprint, time, state, checksum)
                     SELECT $1, $2, $3, $4, $5, $6, $7 FROM log WHERE $3 <= ends_at
                     ON CONFLICT (stream, name) DO UPDATE SET at = excluded.at, fingerprint = excluded.fingerprint,
                         time = excluded.time, state = excluded.state, checksum = excluded.checksum
                     WHERE s.at <= excluded.at
                 )
                 SELECT ends_at FROM log",
                &[Type::TEXT, Type::TEXT, Type::INT8, Type::BYTEA, Type::INT8, Type::BYTEA, Type::INT4],
            ),
            schema,
        }
    }
}

/// The payload, metadata and tag bytes of a row; neither of the first two is read for that, even where they are stored
/// out of line.
pub(crate) const SIZE: &str = "octet_length(payload) + coalesce(octet_length(metadata), 0) \
     + coalesce(octet_length(array_to_string(tags, '')), 0)";

/// The two statements for one page.
#[derive(Debug)]
pub(crate) struct PageSql {
    pub(crate) small: Sql,
    pub(crate) bounded: Sql,
}

/// Which rows a page selects, and in which order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) condition: &'a str,
    pub(crate) place: &'a str,
    pub(crate) order: &'a str,
}

impl Rows<'_> {
    /// Selects at most `$1` rows. The content of a row that has more than `$2` bytes is null: if `$2` is the share of
    /// one row, the page cannot become too large, and adding up sizes, which takes as long as reading, is not needed.
    pub(crate) fn small(&self) -> String {
        let Self { condition, place, order } = self;
        let columns = COLUMNS
            .replace(", metadata", &format!(", CASE WHEN {SIZE} <= $2 THEN metadata END"))
            .replace(", payload", &format!(", CASE WHEN {SIZE} <= $2 THEN payload END"));
        format!("SELECT {columns}, false FROM {{es}}.es_event e WHERE {condition} ORDER BY {place}{order} LIMIT $1")
    }

    /// Selects at most `$1` rows of `$2` bytes together, but at least one. The last column tells of each row whether
    /// there is another one after it that would fit in number.
    pub(crate) fn bounded(&self, columns: &str, size: &str) -> String {
        let Self { condition, place, order } = self;
        format!(
            "SELECT {columns}, follows FROM (
                 SELECT {columns}, sum({size}) OVER w AS bytes, row_number() OVER w AS n,
                     lead({place}) OVER w IS NOT NULL AS follows
                 FROM (
                     SELECT * FROM {{es}}.es_event e WHERE {condition} ORDER BY {place}{order} LIMIT $1
                 ) page WINDOW w AS (ORDER BY {place}{order} ROWS UNBOUNDED PRECEDING)
             ) page WHERE n = 1 OR bytes <= $2 ORDER BY n"
        )
    }
}

/// The first parameters of a page: the maximum number of rows and bytes, and the places between which they are.
const PAGE: [Type; 4] = [Type::INT8, Type::INT8, Type::INT8, Type::INT8];

/// The parameters of `es_append`.
const APPEND: [Type; 37] = [
    Type::INT8,
    Type::INT8,
    Type::TEXT,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT4_ARRAY,
    Type::INT4_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT4_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT4_ARRAY,
    Type::INT4_ARRAY,
    Type::UUID_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BOOL,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
    Type::TEXT_ARRAY,
    Type::BOOL_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT4_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT4_ARRAY,
];

fn parameters(count: usize) -> String {
    (1..=count).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ")
}

/// The columns of `es_event` in a join.
fn prefixed(columns: &str) -> String {
    columns.split(", ").map(|column| format!("e.{column}")).collect::<Vec<_>>().join(", ")
}
