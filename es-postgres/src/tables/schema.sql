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
-- For queries by types only: they cost what matches, not what the log holds.
CREATE INDEX es_event_type_position ON {es}.es_event (type, position);
CREATE UNIQUE INDEX es_event_version ON {es}.es_event (stream, version);
CREATE UNIQUE INDEX es_event_id ON {es}.es_event (stream, id) WHERE id IS NOT NULL;
CREATE UNIQUE INDEX es_event_id_text ON {es}.es_event (stream, id_text) WHERE id_text IS NOT NULL;
BEGIN
    ALTER TABLE {es}.es_event ALTER COLUMN payload SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    NULL; -- The server was built without lz4 and compresses in its own way.
END;

-- The index over tags. A table and not an array with an index of its own: those cannot be read in the order of positions.
CREATE TABLE {es}.es_tag (
    tag text COLLATE "C" NOT NULL, position bigint NOT NULL, type integer NOT NULL, PRIMARY KEY (tag, position)
);

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
    e_id_text text[], e_metadata text[], e_tags text[], e_payload bytea[], p_tagged boolean,
    c_key text[], c_fingerprint bytea[], c_streams text[], c_known boolean[], c_position bigint[], c_time bigint[],
    c_behind bigint[], c_sum integer[],
    k_key text[], k_before bigint[], k_revision bigint[], k_value bytea[], k_sum integer[]
) RETURNS boolean LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $es_append$
#variable_conflict use_column
DECLARE
    at_head bigint;
    at_generation bigint;
    at_format integer;
    cells_new bigint;
    cells_set bigint;
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
    -- Cells are also set by those who do not lock es_writer, so each is compared with what it was judged by. No two of
    -- these can wait for each other: all others lock one cell and nothing else.
    IF cardinality(k_key) > 0 THEN
        INSERT INTO {es}.es_cell (key, revision, value, checksum)
        SELECT key, revision, value, checksum
        FROM unnest(k_key, k_before, k_revision, k_value, k_sum) AS k (key, before, revision, value, checksum)
        WHERE before = 0 ON CONFLICT (key) DO NOTHING;
        GET DIAGNOSTICS cells_new = ROW_COUNT;
        UPDATE {es}.es_cell c SET revision = k.revision, value = k.value, checksum = k.checksum
        FROM unnest(k_key, k_before, k_revision, k_value, k_sum) AS k (key, before, revision, value, checksum)
        WHERE k.before > 0 AND c.key = k.key AND c.revision = k.before;
        GET DIAGNOSTICS cells_set = ROW_COUNT;
        IF cells_new + cells_set < cardinality(k_key) THEN
            RAISE EXCEPTION 'a cell was set since it was read' USING ERRCODE = 'serialization_failure';
        END IF;
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
        INSERT INTO {es}.es_event
            (position, stream, version, time, type, checksum, id, id_text, metadata, tags, payload)
        SELECT p_head + n, stream, version, time, type, checksum, id, id_text, metadata, tags::text[], payload
        FROM unnest(e_stream, e_version, e_time, e_type, e_sum, e_id, e_id_text, e_metadata, e_tags, e_payload)
            WITH ORDINALITY AS e (stream, version, time, type, checksum, id, id_text, metadata, tags, payload, n)
        ORDER BY n;
    END IF;
    IF p_tagged THEN
        INSERT INTO {es}.es_tag (tag, position, type)
        SELECT t.tag, p_head + e.n, e.type
        FROM unnest(e_type, e_tags) WITH ORDINALITY AS e (type, tags, n), unnest(e.tags::text[]) AS t (tag);
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

-- Finds up to p_limit events between two positions that match a query, in either direction. A query is a list of
-- criteria like {"types": ["a"], "tags": ["b:1", "c:2"]}. For each, the rarest of its tags (or its types, if they are
-- rarer) leads, and at most p_scan of its events are examined; then `covered` is the last position that was.
CREATE FUNCTION {es}.es_matching(
    p_query jsonb, p_after bigint, p_before bigint, p_limit integer, p_scan integer, p_backward boolean,
    OUT positions bigint[], OUT covered bigint
) LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $es_matching$
#variable_conflict use_column
DECLARE
    criterion jsonb;
    with_tags text[];
    with_types integer[];
    one text;
    lead_tag text;
    found bigint;
    fewest bigint;
    most integer;
    scanned bigint;
    last bigint;
    matching bigint[];
    direction text := CASE WHEN p_backward THEN 'DESC' ELSE 'ASC' END;
    furthest text := CASE WHEN p_backward THEN 'min' ELSE 'max' END;
    between_both text := 'position > $1 AND position < $2';
BEGIN
    positions := '{}';
    FOR criterion IN SELECT * FROM jsonb_array_elements(p_query) LOOP
        with_tags := ARRAY(SELECT DISTINCT jsonb_array_elements_text(criterion -> 'tags'));
        with_types := NULL;
        IF jsonb_array_length(criterion -> 'types') > 0 THEN
            with_types := ARRAY(
                SELECT id FROM {es}.es_event_type
                WHERE name = ANY(ARRAY(SELECT jsonb_array_elements_text(criterion -> 'types')))
            );
            CONTINUE WHEN cardinality(with_types) = 0;
        END IF;
        lead_tag := with_tags[1];
        IF cardinality(with_tags) + (with_types IS NOT NULL)::integer > 1 THEN
            -- Counting stops at `most`, so that finding the rarest costs no more than reading it.
            most := 32;
            LOOP
                fewest := most;
                lead_tag := with_tags[1];
                FOREACH one IN ARRAY with_tags LOOP
                    SELECT count(*) INTO found FROM (
                        SELECT FROM {es}.es_tag WHERE tag = one AND position > p_after AND position < p_before
                        LIMIT most
                    ) counted;
                    IF found < fewest THEN
                        fewest := found;
                        lead_tag := one;
                    END IF;
                END LOOP;
                IF with_types IS NOT NULL THEN
                    SELECT count(*) INTO found FROM unnest(with_types) AS y (id), LATERAL (
                        SELECT FROM {es}.es_event WHERE type = y.id AND position > p_after AND position < p_before
                        LIMIT most
                    ) counted;
                    IF found < fewest THEN
                        fewest := found;
                        lead_tag := NULL;
                    END IF;
                END IF;
                EXIT WHEN fewest < most OR most > 100000;
                most := most * 8;
            END LOOP;
        END IF;
        -- If the lead is all there is to the criterion, no more than the limit has to be read.
        most := CASE
            WHEN cardinality(with_tags) + (with_types IS NOT NULL)::integer > 1 THEN p_scan
            ELSE least(p_scan, p_limit)
        END;
        IF lead_tag IS NOT NULL THEN
            EXECUTE format(
                'WITH lead AS MATERIALIZED (
                     SELECT position, type FROM {es}.es_tag WHERE tag = $3 AND %1$s ORDER BY position %2$s LIMIT $4
                 ) SELECT count(*), %3$s(position), ARRAY(
                     SELECT position FROM lead WHERE ($5 IS NULL OR type = ANY($5)) AND NOT EXISTS (
                         SELECT FROM unnest($6) AS other (tag) WHERE NOT EXISTS (
                             SELECT FROM {es}.es_tag x WHERE x.tag = other.tag AND x.position = lead.position
                         )
                     ) ORDER BY position %2$s LIMIT $7
                 ) FROM lead', between_both, direction, furthest
            ) INTO scanned, last, matching
            USING p_after, p_before, lead_tag, most, with_types, array_remove(with_tags, lead_tag), p_limit;
        ELSIF with_types IS NOT NULL THEN
            EXECUTE format(
                'WITH lead AS MATERIALIZED (
                     SELECT l.position FROM unnest($3) AS y (id), LATERAL (
                         SELECT position FROM {es}.es_event WHERE type = y.id AND %1$s
                         ORDER BY position %2$s LIMIT $4
                     ) l ORDER BY l.position %2$s LIMIT $4
                 ) SELECT count(*), %3$s(position), ARRAY(
                     SELECT position FROM lead WHERE NOT EXISTS (
                         SELECT FROM unnest($5) AS other (tag) WHERE NOT EXISTS (
                             SELECT FROM {es}.es_tag x WHERE x.tag = other.tag AND x.position = lead.position
                         )
                     ) ORDER BY position %2$s LIMIT $6
                 ) FROM lead', between_both, direction, furthest
            ) INTO scanned, last, matching
            USING p_after, p_before, with_types, most, with_tags, p_limit;
        ELSE
            EXECUTE format(
                'WITH lead AS MATERIALIZED (
                     SELECT position FROM {es}.es_event WHERE %1$s ORDER BY position %2$s LIMIT $3
                 ) SELECT count(*), %3$s(position),
                     ARRAY(SELECT position FROM lead ORDER BY position %2$s) FROM lead', between_both, direction, furthest
            ) INTO scanned, last, matching USING p_after, p_before, most;
        END IF;
        positions := positions || matching;
        IF scanned >= most THEN
            covered := CASE WHEN p_backward THEN greatest(covered, last) ELSE least(covered, last) END;
        END IF;
    END LOOP;
    IF p_backward THEN
        positions := ARRAY(
            SELECT DISTINCT at FROM unnest(positions) AS p (at) WHERE covered IS NULL OR at >= covered
            ORDER BY at DESC LIMIT p_limit
        );
    ELSE
        positions := ARRAY(
            SELECT DISTINCT at FROM unnest(positions) AS p (at) WHERE covered IS NULL OR at <= covered
            ORDER BY at LIMIT p_limit
        );
    END IF;
END
$es_matching$;

-- The first event after a position that matches a query.
CREATE FUNCTION {es}.es_first_match(p_query jsonb, p_after bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS
$es_first_match$
DECLARE
    after bigint := p_after;
    found record;
BEGIN
    LOOP
        SELECT * INTO found FROM {es}.es_matching(p_query, after, 9223372036854775807, 1, 10000, false);
        IF cardinality(found.positions) > 0 THEN
            RETURN found.positions[1];
        END IF;
        IF found.covered IS NULL THEN
            RETURN NULL;
        END IF;
        after := found.covered;
    END LOOP;
END
$es_first_match$;

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
CREATE TRIGGER es_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {es}.es_tag
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
