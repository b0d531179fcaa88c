-- Producers whose records go on under another id (rule 7), and what is missing of them.

-- The digest of the producer's chain behind the last missing record; null where it is not known. When Postgres passes
-- that very position, the records were found after all, and the hole is closed.
ALTER TABLE holes ADD COLUMN digest bytea CHECK (length(digest) = 16);

CREATE INDEX producers_predecessor ON producers (predecessor) WHERE predecessor IS NOT NULL;
