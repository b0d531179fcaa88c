-- Subscriptions with terms of their own, and plans that change in the middle of a period.

ALTER TABLE plan_versions
    -- Used from effective_at on, in the middle of periods too; else by periods that begin at or after it.
    ADD COLUMN at_once boolean NOT NULL DEFAULT false;

-- What a subscription has otherwise than its plan, as the table of a catalog file; null for nothing.
ALTER TABLE subscriptions
    ADD COLUMN overrides jsonb CHECK (jsonb_typeof(overrides) = 'object');

CREATE TABLE subscription_changes (
    -- A subscription pays by another plan from `at` on, until the next change.
    subscription  text        NOT NULL REFERENCES subscriptions,
    at            timestamptz NOT NULL CHECK (at >= '1970-01-01Z' AND at < '2200-01-01Z'),
    plan          text        NOT NULL REFERENCES plans,
    overrides     jsonb       CHECK (jsonb_typeof(overrides) = 'object'),
    made_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (subscription, at)
);
CREATE INDEX subscription_changes_plan ON subscription_changes (plan);

CREATE VIEW subscription_terms AS
    -- A subscription with its changes, oldest first: an array a column, null where there are none.
    SELECT id, customer, subscriptions.plan, start_at, end_at, subscriptions.overrides,
           later.at AS changed_at, later.plan AS changed_plan, later.overrides AS changed_overrides
    FROM subscriptions CROSS JOIN LATERAL (
        SELECT array_agg(at ORDER BY at) AS at, array_agg(plan ORDER BY at) AS plan,
               array_agg(overrides ORDER BY at) AS overrides
        FROM subscription_changes WHERE subscription = subscriptions.id
    ) AS later;

CREATE VIEW subscription_boundaries AS
    -- When a billing period of a customer begins or ends, as far as it was declared.
    SELECT customer, start_at AS at FROM subscriptions
    UNION ALL
    SELECT customer, end_at FROM subscriptions WHERE end_at IS NOT NULL
    UNION ALL
    SELECT customer, at FROM subscription_changes JOIN subscriptions ON subscriptions.id = subscription
    UNION ALL
    SELECT customer, effective_at
    FROM subscriptions JOIN plan_versions ON plan_versions.at_once AND (
        plan_versions.plan = subscriptions.plan OR EXISTS (
            SELECT FROM subscription_changes
            WHERE subscription = subscriptions.id AND subscription_changes.plan = plan_versions.plan
        )
    );

CREATE OR REPLACE VIEW events_needed (needed_by, since) AS
    -- As before, but a subscription needs no events of its trial: one that ends within it is never invoiced.
    SELECT 'subscription ' || subscriptions.id || ', which is not invoiced beyond it', frontier.reached
    FROM subscriptions LEFT JOIN LATERAL (
        -- The version that the subscription begins with: the newest in effect at its start, or else the first.
        SELECT (definition -> 'trial' ->> 'days')::integer AS days
        FROM plan_versions WHERE plan_versions.plan = subscriptions.plan
        ORDER BY effective_at <= start_at DESC, CASE WHEN effective_at <= start_at THEN version ELSE -version END DESC
        LIMIT 1
    ) AS trial ON true CROSS JOIN LATERAL (
        SELECT coalesce(
            max(period_end),
            start_at + coalesce((overrides -> 'trial' ->> 'days')::integer, trial.days, 0) * interval '24 hours'
        ) AS reached
        FROM invoices WHERE subscription = subscriptions.id AND kind = 'period'
    ) AS frontier
    WHERE end_at IS NULL OR frontier.reached < end_at
    UNION ALL
    SELECT 'discrepancy ' || discrepancy || ', which is not resolved', window_start
    FROM discrepancies WHERE resolved_at IS NULL
    UNION ALL
    SELECT 'hole ' || producer || '/' || shard || '/' || first_sequence || ', which nobody accepted', '-infinity'
    FROM holes WHERE accepted_at IS NULL;
