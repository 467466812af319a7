-- A device that only speaks HTTP shows its token and may leave its name out: it is found by the token's hash.

CREATE INDEX devices_by_token ON devices (token_hash) WHERE token_hash IS NOT NULL;
CREATE INDEX devices_by_old_token ON devices (old_token_hash) WHERE old_token_hash IS NOT NULL;
