-- The audit log as one chain of hashes for each organization; src/audit.rs says over what. What was written before is taken
-- into the chains by the program, before it writes anything else.

ALTER TABLE audit_log RENAME TO audit_log_unchained;
DROP INDEX audit_log_by_org;
DELETE FROM counters WHERE name = 'audit';

CREATE TABLE audit_log (
    org TEXT NOT NULL,
    -- From 1 in each organization, without gaps.
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT,
    hash TEXT NOT NULL,
    PRIMARY KEY (org, seq)
);
CREATE INDEX audit_log_by_target ON audit_log (org, target, seq);

-- The end of each chain. Its row is locked by whoever adds to the chain.
CREATE TABLE audit_heads (
    org TEXT PRIMARY KEY NOT NULL,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    -- Up to where it was signed.
    signed_seq BIGINT NOT NULL
);

-- Heads that were signed while they were.
CREATE TABLE audit_checkpoints (
    org TEXT NOT NULL,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    at BIGINT NOT NULL,
    sig TEXT NOT NULL,
    PRIMARY KEY (org, seq)
);
