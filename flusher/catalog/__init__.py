"""The catalog: meters, plans, customers and subscriptions, read from TOML, checked whole, compared and applied.

`parse` reads a file, `diff` compares it with what is in force. Both are pure; `flusher.catalog_store` keeps the
result in Postgres.

Decisions
---------
**A file is checked together with the catalog in force.** Context: `apply` never removes what is absent, so a file
may hold subscriptions alone, for plans that came with an earlier file. Consequence: `parse` takes the catalog in
force, and a file's validity depends on it.

**A plan's version counts for periods that begin at or after it was applied.** Context: a changed plan takes effect
from each subscription's next period, and subscriptions may start in the past. Decision: a version has an
`effective_at`; a period uses the last version with `effective_at` at or before its start, and the plan's first
version where there is none. Consequence: nothing is written per subscription, and a late re-rating finds the same
version again.

**A plan is kept as the table it was written as.** Decision: `plan_versions.definition` holds the normalised TOML
table as JSON, and is read with the reader of the file. Consequence: one reader, and an old version is checked
against the rules like a new one.

**What a subscription is can't change, only when it ends.** Context: changing a plan or a start in the middle of a
period needs rules for what was billed already, which come with proration of usage. Decision: customer, plan and
start are fixed once applied; end the subscription and make another one.
"""
