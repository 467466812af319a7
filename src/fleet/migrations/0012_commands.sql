-- Commands with conditions, in groups, made once however often they are asked for, and handed out over HTTP.

ALTER TABLE commands ADD COLUMN precond TEXT;
ALTER TABLE commands ADD COLUMN group_id TEXT;
-- When a device that speaks HTTP was last given it.
ALTER TABLE commands ADD COLUMN handed_at BIGINT;
-- The version of the configuration that it brings.
ALTER TABLE commands ADD COLUMN config_ver BIGINT;
CREATE INDEX commands_by_group ON commands (group_id) WHERE group_id IS NOT NULL;
DROP INDEX commands_to_send;
CREATE INDEX commands_to_send ON commands (priority, created_at) WHERE retained IN ('publish', 'withdraw', 'again');

CREATE TABLE command_groups (
    id TEXT PRIMARY KEY NOT NULL,
    org TEXT NOT NULL REFERENCES organizations (id),
    type TEXT NOT NULL,
    payload TEXT NOT NULL,
    -- The tag that chose its devices; none when they were listed.
    tag TEXT,
    total BIGINT NOT NULL,
    notes TEXT,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX command_groups_by_org ON command_groups (org, created_at);

CREATE TABLE idempotency_keys (
    org TEXT NOT NULL,
    key TEXT NOT NULL,
    -- Of the request: another one with the same key is refused.
    hash TEXT NOT NULL,
    -- What it made.
    target TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (org, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
