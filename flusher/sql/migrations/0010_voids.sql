-- Usage corrections: voids, which cancel an event each, and backfills, which bring events of the past.

-- When the event was taken out of usage; null for one that counts. What adds up events leaves the others out.
ALTER TABLE events ADD COLUMN voided_at timestamptz;

CREATE TABLE voids (
    -- The event that each void cancels, by its primary key, whether it has come or not. The void itself is an event.
    event_time    timestamptz NOT NULL,
    event_key     bytea       NOT NULL CHECK (length(event_key) = 16),
    shard         integer     NOT NULL,
    user_id       text        NOT NULL,
    source        text        NOT NULL,
    id            text        NOT NULL,
    reason        text        NOT NULL CHECK (length(reason) BETWEEN 1 AND 256),
    received_at   timestamptz NOT NULL,
    -- When the event was taken out of usage; null while it has not come.
    voided_at     timestamptz,
    PRIMARY KEY (event_time, event_key)
);
CREATE INDEX voids_waiting ON voids (shard, event_time) WHERE voided_at IS NULL;

CREATE OR REPLACE VIEW event_list AS
    -- What counts: neither voids nor what they cancelled.
    SELECT event_time, received_at, user_id, source, id, event_type, units, properties, events
    FROM events WHERE voided_at IS NULL AND event_type <> 'taximeter.void';

CREATE VIEW void_list AS
    -- Every void; `voided_at` is null while its event has not come.
    SELECT event_time, received_at, user_id, source, id, reason, voided_at FROM voids;

CREATE TABLE backfills (
    -- Files of events of the past. The same file is the same backfill, however often it is sent.
    backfill      text        PRIMARY KEY CHECK (length(backfill) BETWEEN 8 AND 64),
    name          text        NOT NULL CHECK (length(name) <= 256),
    reason        text        NOT NULL CHECK (length(reason) BETWEEN 1 AND 256),
    started_at    timestamptz NOT NULL DEFAULT now(),
    -- What became of the events when it was sent last, and since when all of them are answered.
    sent          bigint      NOT NULL DEFAULT 0,
    accepted      bigint      NOT NULL DEFAULT 0,
    duplicates    bigint      NOT NULL DEFAULT 0,
    conflicts     bigint      NOT NULL DEFAULT 0,
    rejected      bigint      NOT NULL DEFAULT 0,
    sent_at       timestamptz,
    -- Why all of it is cancelled, and since when every void is answered.
    undo_reason   text        CHECK (length(undo_reason) BETWEEN 1 AND 256),
    undone_at     timestamptz
);

CREATE TABLE backfill_events (
    -- What each backfill brought: the events of its file that PostgreSQL did not have when they were sent.
    backfill      text        NOT NULL REFERENCES backfills,
    event_time    timestamptz NOT NULL,
    event_key     bytea       NOT NULL CHECK (length(event_key) = 16),
    user_id       text        NOT NULL,
    source        text        NOT NULL,
    id            text        NOT NULL,
    PRIMARY KEY (backfill, event_time, event_key)
);
