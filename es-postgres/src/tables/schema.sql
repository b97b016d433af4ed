-- The tables of a store, format 1; see docs/postgres.md for the meaning of every column.
-- It can be run again: if the schema holds a store, it changes nothing.
DO $es_schema$
BEGIN
-- Several processes may create the store at the same time.
PERFORM pg_advisory_xact_lock({lock});
-- Read from the catalogs themselves: `to_regclass` may remember what was there before the lock was waited for.
IF EXISTS (
    SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = {name} AND c.relname = 'es_writer'
) THEN
    RETURN;
END IF;
IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {name}) THEN
    CREATE SCHEMA {es};
END IF;

-- One row: every append locks it first, so it is the queue of the writers. Nothing in it changes from append to
-- append: the newest row of es_event is the head of the log.
CREATE TABLE {es}.es_writer (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), store_id uuid NOT NULL, format integer NOT NULL,
    generation bigint NOT NULL, position_floor bigint, time_floor bigint, write_requires text NOT NULL,
    checksum integer NOT NULL
) WITH (fillfactor = 10);
INSERT INTO {es}.es_writer (store_id, format, generation, write_requires, checksum)
VALUES ('{store_id}', {format}, 0, '', {writer_sum});

CREATE TABLE {es}.es_stream (
    id bigint PRIMARY KEY, name text COLLATE "C" NOT NULL UNIQUE, category text COLLATE "C" NOT NULL,
    checksum integer NOT NULL
);
CREATE INDEX es_stream_category ON {es}.es_stream (category, id);

CREATE TABLE {es}.es_event_type (
    id integer PRIMARY KEY, name text COLLATE "C" NOT NULL, schema_version bigint NOT NULL, codec text NOT NULL,
    shape text, checksum integer NOT NULL
);
CREATE INDEX es_event_type_name ON {es}.es_event_type (name);

-- Rows are only ever added at the end, so their pages can be filled.
CREATE TABLE {es}.es_event (
    position bigint NOT NULL, stream bigint NOT NULL, version bigint NOT NULL, time bigint NOT NULL,
    type integer NOT NULL, checksum integer NOT NULL, id uuid, id_text text COLLATE "C", metadata text, tags text[],
    payload bytea NOT NULL,
    CONSTRAINT es_event_position PRIMARY KEY (position) WITH (fillfactor = 100)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
CREATE UNIQUE INDEX es_event_version ON {es}.es_event (stream, version);
CREATE UNIQUE INDEX es_event_id ON {es}.es_event (stream, id) WHERE id IS NOT NULL;
CREATE UNIQUE INDEX es_event_id_text ON {es}.es_event (stream, id_text) WHERE id_text IS NOT NULL;
BEGIN
    ALTER TABLE {es}.es_event ALTER COLUMN payload SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    NULL; -- The server was built without lz4 and compresses in its own way.
END;

CREATE TABLE {es}.es_command (
    key text COLLATE "C" NOT NULL, fingerprint bytea NOT NULL, streams text NOT NULL, known boolean NOT NULL,
    position bigint NOT NULL, time bigint NOT NULL, clock_behind bigint NOT NULL, checksum integer NOT NULL,
    CONSTRAINT es_command_key PRIMARY KEY (key)
);
CREATE TABLE {es}.es_cell (
    key text COLLATE "C" PRIMARY KEY, revision bigint NOT NULL, value bytea, checksum integer NOT NULL
) WITH (fillfactor = 70);
CREATE TABLE {es}.es_snapshot (
    stream text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, at bigint NOT NULL, fingerprint bytea NOT NULL,
    time bigint NOT NULL, state bytea NOT NULL, checksum integer NOT NULL, PRIMARY KEY (stream, name)
);

-- Writes what a group of appends was judged to write, if the log still ends where it was judged.
CREATE FUNCTION {es}.es_append(
    p_head bigint, p_generation bigint, p_patience text,
    s_id bigint[], s_name text[], s_category text[], s_sum integer[],
    t_id integer[], t_name text[], t_version bigint[], t_codec text[], t_shape text[], t_sum integer[],
    e_stream bigint[], e_version bigint[], e_time bigint[], e_type integer[], e_sum integer[], e_id uuid[],
    e_id_text text[], e_metadata text[], e_payload bytea[],
    c_key text[], c_fingerprint bytea[], c_streams text[], c_known boolean[], c_position bigint[], c_time bigint[],
    c_behind bigint[], c_sum integer[]
) RETURNS boolean LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $es_append$
#variable_conflict use_column
DECLARE
    at_head bigint;
    at_generation bigint;
    at_format integer;
BEGIN
    PERFORM set_config('lock_timeout', p_patience, true);
    SELECT generation, format, position_floor INTO at_generation, at_format, at_head FROM {es}.es_writer FOR UPDATE;
    -- A statement of its own, because it must see what was committed while it waited for the lock.
    at_head := greatest(
        coalesce(at_head, 0),
        coalesce((SELECT position FROM {es}.es_event ORDER BY position DESC LIMIT 1), 0)
    );
    IF at_head <> p_head OR at_generation <> p_generation OR at_format <> {format} THEN
        RETURN false;
    END IF;
    IF cardinality(s_id) > 0 THEN
        INSERT INTO {es}.es_stream (id, name, category, checksum)
        SELECT * FROM unnest(s_id, s_name, s_category, s_sum);
    END IF;
    IF cardinality(t_id) > 0 THEN
        INSERT INTO {es}.es_event_type (id, name, schema_version, codec, shape, checksum)
        SELECT * FROM unnest(t_id, t_name, t_version, t_codec, t_shape, t_sum);
    END IF;
    IF cardinality(e_stream) > 0 THEN
        INSERT INTO {es}.es_event (position, stream, version, time, type, checksum, id, id_text, metadata, payload)
        SELECT p_head + n, stream, version, time, type, checksum, id, id_text, metadata, payload
        FROM unnest(e_stream, e_version, e_time, e_type, e_sum, e_id, e_id_text, e_metadata, e_payload)
            WITH ORDINALITY AS e (stream, version, time, type, checksum, id, id_text, metadata, payload, n)
        ORDER BY n;
    END IF;
    IF cardinality(c_key) > 0 THEN
        INSERT INTO {es}.es_command (key, fingerprint, streams, known, position, time, clock_behind, checksum)
        SELECT * FROM unnest(c_key, c_fingerprint, c_streams, c_known, c_position, c_time, c_behind, c_sum);
    END IF;
    RETURN true;
END
$es_append$;

-- Finds the last place in (p_low, p_high] whose event is at or below a position and a time, or p_low. Neither
-- positions nor times ever decrease, so it searches by halves and needs no index over times.
CREATE FUNCTION {es}.es_last_upto(p_stream bigint, p_low bigint, p_high bigint, p_position bigint, p_time bigint)
RETURNS bigint LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $es_last_upto$
#variable_conflict use_column
DECLARE
    low bigint := p_low;
    high bigint := p_high;
    middle bigint;
    at_place bigint;
    at_position bigint;
    at_time bigint;
BEGIN
    WHILE low < high LOOP
        middle := low + (high - low) / 2;
        IF p_stream IS NULL THEN
            SELECT position, position, time INTO at_place, at_position, at_time
            FROM {es}.es_event WHERE position > middle ORDER BY position LIMIT 1;
        ELSE
            SELECT version, position, time INTO at_place, at_position, at_time
            FROM {es}.es_event WHERE stream = p_stream AND version > middle ORDER BY version LIMIT 1;
        END IF;
        IF at_place IS NOT NULL AND at_position <= p_position AND at_time <= p_time THEN
            low := least(greatest(at_place, middle + 1), high);
        ELSE
            high := middle;
        END IF;
    END LOOP;
    RETURN low;
END
$es_last_upto$;

-- The log is only ever added to. A migration that has to change rows sets es.allow_changes for its own transaction.
CREATE FUNCTION {es}.es_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $es_refuse_change$
BEGIN
    IF coalesce(current_setting('es.allow_changes', true), '') = 'yes' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'rows of % are never changed or removed', TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege', HINT = 'Append an event that corrects what it says.';
END
$es_refuse_change$;
CREATE TRIGGER es_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {es}.es_event
FOR EACH STATEMENT EXECUTE FUNCTION {es}.es_refuse_change();
CREATE TRIGGER es_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {es}.es_stream
FOR EACH STATEMENT EXECUTE FUNCTION {es}.es_refuse_change();
CREATE TRIGGER es_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {es}.es_event_type
FOR EACH STATEMENT EXECUTE FUNCTION {es}.es_refuse_change();
CREATE TRIGGER es_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {es}.es_command
FOR EACH STATEMENT EXECUTE FUNCTION {es}.es_refuse_change();

-- For people: the log with its names.
CREATE VIEW {es}.log AS
SELECT e.position, s.name AS stream, e.version, t.name AS type, t.schema_version, t.codec,
    CASE WHEN e.time BETWEEN -210000000000000000 AND 9000000000000000000
        THEN timestamptz 'epoch' + e.time * interval '1 microsecond' END AS time,
    coalesce(e.id_text, e.id::text) AS id, e.metadata, e.tags,
    CASE t.codec WHEN 'json' THEN convert_from(e.payload, 'UTF8') END AS json, e.payload
FROM {es}.es_event e JOIN {es}.es_stream s ON s.id = e.stream JOIN {es}.es_event_type t ON t.id = e.type;
END
$es_schema$;
