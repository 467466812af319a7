-- Tags that can be searched by, and tokens that overlap while a device changes over to a new one.

CREATE TABLE device_tags (
    org TEXT NOT NULL,
    tag TEXT NOT NULL,
    device_id TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    PRIMARY KEY (org, tag, device_id)
);
CREATE INDEX device_tags_by_device ON device_tags (device_id);

-- The token before the current one: good until the current one is used, or until then.
ALTER TABLE devices ADD COLUMN old_token_hash TEXT;
ALTER TABLE devices ADD COLUMN old_token_until BIGINT;
