-- Releases, signed by their makers, and their way into the fleet.

CREATE TABLE release_keys (
    id TEXT PRIMARY KEY NOT NULL,
    org TEXT NOT NULL REFERENCES organizations (id),
    name TEXT NOT NULL,
    -- ed25519, base64. The private half never comes here.
    public_key TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX release_keys_by_org ON release_keys (org, created_at);

CREATE TABLE releases (
    org TEXT NOT NULL REFERENCES organizations (id),
    version TEXT NOT NULL,
    -- `any`, or a processor.
    arch TEXT NOT NULL,
    channel TEXT NOT NULL,
    artifact_url TEXT NOT NULL,
    signature_url TEXT,
    checksum_sha256 TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    min_version TEXT,
    changelog TEXT,
    signature TEXT,
    key_id TEXT,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    published_at BIGINT,
    PRIMARY KEY (org, version, arch)
);

CREATE TABLE rollouts (
    id TEXT PRIMARY KEY NOT NULL,
    org TEXT NOT NULL REFERENCES organizations (id),
    version TEXT NOT NULL,
    -- Devices with this tag; without one, those of the channel.
    tag TEXT,
    channel TEXT NOT NULL,
    percent BIGINT NOT NULL,
    abort_percent BIGINT NOT NULL,
    at_once BIGINT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX rollouts_by_org ON rollouts (org, created_at);
CREATE INDEX rollouts_running ON rollouts (id) WHERE state = 'running';

CREATE TABLE rollout_devices (
    rollout_id TEXT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    device_id TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    command_id TEXT NOT NULL,
    PRIMARY KEY (rollout_id, device_id)
);
