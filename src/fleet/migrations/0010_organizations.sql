-- Platform administrators make organizations; API keys act for their makers.

ALTER TABLE users ADD COLUMN platform BOOLEAN NOT NULL DEFAULT FALSE;
-- Of a database that is older than the flag, the first administrator becomes one.
UPDATE users SET platform = TRUE WHERE id =
    (SELECT id FROM users WHERE org = 'default' AND role = 'admin' ORDER BY created_at, id LIMIT 1);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY NOT NULL,
    org TEXT NOT NULL REFERENCES organizations (id),
    -- A deleted maker takes the keys along.
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    -- JSON array of words.
    scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT
);
CREATE INDEX api_keys_by_org ON api_keys (org, created_at);
CREATE INDEX api_keys_by_user ON api_keys (user_id);
