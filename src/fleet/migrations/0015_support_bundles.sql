-- Support bundles: made on a device by the command of the same id, uploaded piece by piece, kept as files beside the database.

CREATE TABLE support_bundles (
    id TEXT PRIMARY KEY,
    org TEXT NOT NULL,
    device_id TEXT NOT NULL,
    -- requested, uploading, ready or failed
    state TEXT NOT NULL,
    size_bytes BIGINT,
    sha256 TEXT,
    -- What is in the file for certain; whatever lies behind it was not acknowledged.
    received_bytes BIGINT NOT NULL,
    error TEXT,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    completed_at BIGINT,
    expires_at BIGINT NOT NULL
);
CREATE INDEX support_bundles_of_device ON support_bundles (org, device_id, created_at);
CREATE INDEX support_bundles_by_expiry ON support_bundles (expires_at);
