-- What is forgotten (rule 15): floors that move, and what is remembered of the events that were dropped.

ALTER TABLE ledger
    -- Sidecars refuse events at or before it since event_floor_next_at. event_floor follows once nothing that was
    -- accepted before that can come any more.
    ADD COLUMN event_floor_next    timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN event_floor_next_at timestamptz NOT NULL DEFAULT now(),
    -- Claims at or before it are dropped. It lies below claim_floor by as long as claims are kept, so that a batch
    -- above claim_floor finds every claim that it may repeat.
    ADD COLUMN claims_dropped_to   timestamptz NOT NULL DEFAULT '-infinity';

CREATE TABLE dropped_events (
    -- A month of events that is dropped, or is counted hour by hour on the way there, and what usage showed for it.
    month         timestamptz NOT NULL,
    shard         integer     NOT NULL REFERENCES shards,
    counted_to    timestamptz NOT NULL,
    events        bigint      NOT NULL DEFAULT 0,
    units         numeric     NOT NULL DEFAULT 0,
    usage_events  bigint      NOT NULL DEFAULT 0,
    usage_units   numeric     NOT NULL DEFAULT 0,
    dropped_at    timestamptz,
    PRIMARY KEY (month, shard)
);

CREATE TABLE boundary_events (
    -- Events of dropped months that a billed period still asks for, since it begins or ends inside their window.
    event_time    timestamptz NOT NULL,
    event_key     bytea       NOT NULL,
    revision      integer     NOT NULL,
    events        integer     NOT NULL,
    user_id       text        NOT NULL,
    event_type    text        NOT NULL,
    units         numeric     NOT NULL,
    properties    jsonb,
    PRIMARY KEY (event_time, event_key)
);

CREATE VIEW events_needed (needed_by, since) AS
    -- What can't do without single events, and from when on. The floor of events stays below all of it.
    SELECT 'subscription ' || subscriptions.id || ', which is not invoiced beyond it', frontier.reached
    FROM subscriptions CROSS JOIN LATERAL (
        SELECT coalesce(max(period_end), start_at) AS reached FROM invoices
        WHERE subscription = subscriptions.id AND kind = 'period'
    ) AS frontier
    WHERE end_at IS NULL OR frontier.reached < end_at
    UNION ALL
    SELECT 'discrepancy ' || discrepancy || ', which is not resolved', window_start
    FROM discrepancies WHERE resolved_at IS NULL
    UNION ALL
    SELECT 'hole ' || producer || '/' || shard || '/' || first_sequence || ', which nobody accepted', '-infinity'
    FROM holes WHERE accepted_at IS NULL;
