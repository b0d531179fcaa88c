-- Erasure: who somebody was is replaced by random tokens; what was counted and billed stays.

CREATE TABLE erasures (
    -- One a customer that was erased; its token stands for the customer from then on. Nothing here leads back.
    erasure       text        PRIMARY KEY CHECK (length(erasure) BETWEEN 8 AND 64),
    begun_at      timestamptz NOT NULL DEFAULT now(),
    finished_at   timestamptz,
    users         integer     NOT NULL CHECK (users > 0),
    -- Rows that were changed, by table.
    counts        jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(counts) = 'object')
);

CREATE TABLE erased_users (
    -- The tokens of its users, and what their usage was. Properties are gone, so it can't be counted again from events:
    -- the proof holds it against this.
    token         text        PRIMARY KEY CHECK (length(token) BETWEEN 8 AND 64),
    erasure       text        NOT NULL REFERENCES erasures,
    usage_events  bigint,
    usage_units   numeric
);

CREATE TABLE erasing (
    -- What an erasure needs until it is finished, and nothing afterwards: whose token is which, and what the values of
    -- dimensions and labels are hashed with, so that a killed one goes on with the same.
    user_id       text        PRIMARY KEY,
    customer      text        NOT NULL,
    token         text        NOT NULL UNIQUE REFERENCES erased_users,
    erasure       text        NOT NULL REFERENCES erasures,
    shard         integer     NOT NULL,
    salt          bytea       NOT NULL CHECK (length(salt) = 32)
);

CREATE FUNCTION erased_text(value text, salt bytea) RETURNS text
    -- The same for the same value within an erasure, and nobody's outside of it.
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN left(encode(sha256(salt || convert_to(value, 'UTF8')), 'hex'), 16);

CREATE FUNCTION erased_dimensions(dimensions jsonb, salt bytea) RETURNS jsonb
    -- The same dimensions with such values: groups that differed differ.
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT coalesce(jsonb_object_agg(key, erased_text(value, salt)), '{}') FROM jsonb_each_text(dimensions)
);

CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
-- An erasure changes whom something was billed to. Everything else of a row has to stay as it is.
DECLARE
    personal CONSTANT text[] := '{customer, subscription, detail, dimensions, description, grant_id}';
BEGIN
    IF TG_OP = 'UPDATE' AND current_setting('taximeter.erasing', true) = 'yes'
        AND to_jsonb(NEW) - personal = to_jsonb(OLD) - personal THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% of % is refused: what was billed is never changed, bill the difference', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;

-- Ids that name their customer are replaced as well, and whatever points to them follows.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT conrelid::regclass AS of_table, conname, pg_get_constraintdef(oid) AS definition FROM pg_constraint
        WHERE contype = 'f' AND confrelid = ANY ('{customers, subscriptions, credit_grants}'::regclass[])
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s ON UPDATE CASCADE',
                       found.of_table, found.conname, found.conname, found.definition);
    END LOOP;
END
$$;
