-- The ledger: what was counted, what it adds up to, and how far each producer has been taken.
-- Units are NUMERIC, times are timestamptz in UTC, keys are the 16-byte hashes of sidecar/contract/identity.py.

CREATE TABLE ledger (
    -- One row. The shard count and the id come from here alone (rule 17).
    single        boolean     PRIMARY KEY DEFAULT true CHECK (single),
    id            text        NOT NULL CHECK (length(id) BETWEEN 8 AND 64),
    shards        integer     NOT NULL CHECK (shards BETWEEN 1 AND 1024),
    -- Nothing at or before the floor is counted any more: what would recognise a repeat was dropped (rule 15).
    event_floor   timestamptz NOT NULL DEFAULT '-infinity',
    claim_floor   timestamptz NOT NULL DEFAULT '-infinity',
    created_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE shards (
    -- One row a shard; its lock is what lets a single flusher commit, its token which epoch comes next (rule 3).
    shard         integer     PRIMARY KEY,
    token         text        NOT NULL CHECK (length(token) BETWEEN 1 AND 64),
    committed_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE producers (
    producer      text        PRIMARY KEY CHECK (length(producer) BETWEEN 8 AND 64),
    host          text        NOT NULL DEFAULT '' CHECK (length(host) <= 256),
    predecessor   text        REFERENCES producers,
    registered_at timestamptz NOT NULL DEFAULT now(),
    retired_at    timestamptz
);

CREATE TABLE positions (
    -- How far the journal of a producer has been taken, on one shard.
    producer           text    NOT NULL REFERENCES producers,
    shard              integer NOT NULL REFERENCES shards,
    sequence           bigint  NOT NULL CHECK (sequence >= 0),
    digest             bytea   NOT NULL CHECK (length(digest) = 16),
    -- The running count that came with the batch at this position, in events and in units.
    events             bigint  NOT NULL CHECK (events >= 0),
    units              numeric NOT NULL,
    -- What became of them. The proof (rule 11): nothing can be committed that does not add up.
    inserted_events    bigint  NOT NULL DEFAULT 0,
    inserted_units     numeric NOT NULL DEFAULT 0,
    duplicate_events   bigint  NOT NULL DEFAULT 0,
    duplicate_units    numeric NOT NULL DEFAULT 0,
    conflict_events    bigint  NOT NULL DEFAULT 0,
    conflict_units     numeric NOT NULL DEFAULT 0,
    quarantined_events bigint  NOT NULL DEFAULT 0,
    quarantined_units  numeric NOT NULL DEFAULT 0,
    -- No event with a time assigned before this can come any more from this producer on this shard (rule 10).
    watermark          timestamptz NOT NULL,
    PRIMARY KEY (producer, shard),
    CONSTRAINT every_event_is_accounted_for CHECK (
        events = inserted_events + duplicate_events + conflict_events + quarantined_events
        AND units = inserted_units + duplicate_units + conflict_units + quarantined_units
    )
);

CREATE TABLE revisions (
    -- The meters as they were when a batch was counted: the wire form of sidecar/contract/meters.py.
    revision      integer     PRIMARY KEY CHECK (revision >= 0),
    meters        jsonb       NOT NULL CHECK (jsonb_typeof(meters) = 'array'),
    created_at    timestamptz NOT NULL DEFAULT now()
);
INSERT INTO revisions (revision, meters) VALUES (0, '[]');

CREATE TABLE events (
    -- Every event that counts, once: the primary key is the law (design 2.2).
    event_time    timestamptz NOT NULL,
    event_key     bytea       NOT NULL CHECK (length(event_key) = 16),
    fingerprint   bytea       NOT NULL CHECK (length(fingerprint) = 8),
    shard         integer     NOT NULL,
    revision      integer     NOT NULL,
    events        integer     NOT NULL DEFAULT 1 CHECK (events > 0),
    received_at   timestamptz NOT NULL,
    user_id       text        NOT NULL,
    source        text        NOT NULL,
    id            text,
    event_type    text        NOT NULL,
    units         numeric     NOT NULL CHECK (units > -1e15 AND units < 1e15),
    properties    jsonb,
    PRIMARY KEY (event_time, event_key)
) PARTITION BY RANGE (event_time);

CREATE TABLE claims (
    -- Identities that hold no time: an id without a timestamp, or a share of a request under an Idempotency-Key.
    claim_key     bytea        PRIMARY KEY CHECK (length(claim_key) = 16),
    -- The fingerprint of the event, or the digest of the whole body.
    digest        bytea        NOT NULL CHECK (length(digest) IN (8, 16)),
    -- The indices of the request that are counted; null for an id without a timestamp.
    covered       int4multirange,
    accepted_at   timestamptz  NOT NULL
);
CREATE INDEX claims_accepted_at ON claims (accepted_at);

CREATE TABLE usage (
    -- The sum and the count of every user, meter, dimensions and 15-minute window.
    shard         integer     NOT NULL,
    user_id       text        NOT NULL,
    meter         text        NOT NULL,
    dimensions    jsonb       NOT NULL DEFAULT '{}',
    window_start  timestamptz NOT NULL,
    units         numeric     NOT NULL,
    events        bigint      NOT NULL CHECK (events >= 0),
    PRIMARY KEY (user_id, meter, window_start, dimensions)
);
CREATE INDEX usage_window_start ON usage (shard, window_start);

CREATE TABLE event_conflicts (
    -- Events that were not counted because their identity was taken by another payload. Kept for the operator.
    conflict      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_time    timestamptz NOT NULL,
    event_key     bytea       NOT NULL,
    fingerprint   bytea       NOT NULL,
    received_at   timestamptz NOT NULL,
    producer      text        NOT NULL,
    shard         integer     NOT NULL,
    sequence      bigint      NOT NULL,
    reason        text        NOT NULL CHECK (reason IN ('conflict', 'idempotency_key_reused')),
    user_id       text        NOT NULL,
    source        text        NOT NULL,
    id            text,
    event_type    text        NOT NULL,
    units         numeric     NOT NULL,
    properties    jsonb
);

CREATE TABLE quarantine (
    -- Events that were accepted and can't be stored as they are. Counted by the proof, billed by nobody.
    quarantined   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    producer      text        NOT NULL,
    shard         integer     NOT NULL,
    sequence      bigint      NOT NULL,
    reason        text        NOT NULL CHECK (length(reason) BETWEEN 1 AND 64),
    detail        text        NOT NULL CHECK (length(detail) <= 2000),
    record        bytea       NOT NULL,
    events        bigint      NOT NULL,
    units         numeric     NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    resolved_at   timestamptz,
    resolution    text        CHECK (length(resolution) <= 2000)
);

CREATE TABLE discrepancies (
    -- Where the counters and the stream of an epoch disagreed (rule 9). Open while resolved_at is null; an open one
    -- blocks finalizing the invoices that it touches.
    discrepancy   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shard         integer     NOT NULL,
    epoch         text        NOT NULL,
    user_id       text        NOT NULL,
    meter         text        NOT NULL,
    dimensions    jsonb       NOT NULL,
    window_start  timestamptz NOT NULL,
    counter_units  numeric    NOT NULL,
    counter_events bigint     NOT NULL,
    stream_units   numeric    NOT NULL,
    stream_events  bigint     NOT NULL,
    found_at      timestamptz NOT NULL DEFAULT now(),
    resolved_at   timestamptz
);
CREATE INDEX discrepancies_open ON discrepancies (user_id, meter) WHERE resolved_at IS NULL;

CREATE TABLE holes (
    -- Records of a producer that are known to be missing (rule 7). `verify` fails until an operator accepts them.
    producer       text       NOT NULL,
    shard          integer    NOT NULL,
    first_sequence bigint     NOT NULL,
    last_sequence  bigint     NOT NULL CHECK (last_sequence >= first_sequence),
    events         bigint     NOT NULL,
    found_at       timestamptz NOT NULL DEFAULT now(),
    accepted_at    timestamptz,
    reason         text       CHECK (length(reason) <= 2000),
    PRIMARY KEY (producer, shard, first_sequence)
);

CREATE VIEW event_list AS
    SELECT event_time, received_at, user_id, source, id, event_type, units, properties, events FROM events;
