-- The first floor: organizations, users, devices, their heartbeats and their commands.
--
-- Runs unchanged on SQLite and PostgreSQL: times are milliseconds since 1970 in BIGINT, documents are JSON in TEXT,
-- numbers that count rows come from `counters` instead of an engine's own sequences.

CREATE TABLE organizations (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE counters (
    name TEXT PRIMARY KEY NOT NULL,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('device', 0), ('audit', 0);

CREATE TABLE users (
    id TEXT PRIMARY KEY NOT NULL,
    org TEXT NOT NULL REFERENCES organizations (id),
    email TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    is_active BOOLEAN NOT NULL,
    -- Grows when tokens issued before have to die: new password, new role, switched off.
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    last_login_at BIGINT
);
CREATE INDEX users_by_org ON users (org, email);

CREATE TABLE refresh_tokens (
    hash TEXT PRIMARY KEY NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- All tokens that descend from one sign-in; the second use of one ends the family.
    family TEXT NOT NULL,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);
CREATE INDEX refresh_tokens_by_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_by_user ON refresh_tokens (user_id);

CREATE TABLE enrolment_codes (
    id TEXT PRIMARY KEY NOT NULL,
    org TEXT NOT NULL REFERENCES organizations (id),
    code_hash TEXT NOT NULL UNIQUE,
    note TEXT,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    used_by TEXT
);
CREATE INDEX enrolment_codes_by_org ON enrolment_codes (org, created_at);

CREATE TABLE devices (
    -- Also the MQTT client identifier, so it is unique over all organizations.
    id TEXT PRIMARY KEY NOT NULL,
    -- Short key for the tables with many rows.
    no BIGINT NOT NULL UNIQUE,
    org TEXT NOT NULL REFERENCES organizations (id),
    name TEXT NOT NULL,
    platform TEXT NOT NULL,
    arch TEXT NOT NULL,
    serial_number TEXT,
    mac_address TEXT,
    registered_version TEXT,
    capabilities TEXT,
    location TEXT,
    tags TEXT NOT NULL,
    metadata TEXT NOT NULL,
    notes TEXT,
    update_channel TEXT NOT NULL,
    target_version TEXT,
    token_hash TEXT,
    command_seq BIGINT NOT NULL,
    registered_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    decommissioned_at BIGINT
);
CREATE INDEX devices_by_org ON devices (org, name, id);

-- What a device last said of itself; one row a device, made with it.
CREATE TABLE device_state (
    device_no BIGINT PRIMARY KEY NOT NULL REFERENCES devices (no) ON DELETE CASCADE,
    presence TEXT NOT NULL,
    presence_reason TEXT,
    presence_at BIGINT,
    presence_boot BIGINT NOT NULL,
    presence_conn BIGINT NOT NULL,
    last_seen BIGINT,
    -- Seconds between its heartbeats, as it last said.
    interval_s BIGINT,
    heartbeat_boot BIGINT NOT NULL,
    heartbeat_seq BIGINT NOT NULL,
    heartbeat_ts BIGINT,
    heartbeat TEXT,
    reported_boot BIGINT NOT NULL,
    reported_ver BIGINT NOT NULL,
    reported_ts BIGINT,
    reported TEXT,
    caps TEXT
);
CREATE INDEX device_state_by_presence ON device_state (presence, last_seen);

CREATE TABLE heartbeats (
    device_no BIGINT NOT NULL,
    ts BIGINT NOT NULL,
    boot_seq BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    cpu_percent DOUBLE PRECISION,
    mem_percent DOUBLE PRECISION,
    disk_free_gb DOUBLE PRECISION,
    temperature_c DOUBLE PRECISION,
    load_avg DOUBLE PRECISION,
    degradation_level BIGINT,
    body TEXT NOT NULL,
    -- A heartbeat that is delivered twice says the same time twice, so this one index serves history and deduplication.
    PRIMARY KEY (device_no, ts, boot_seq, seq)
);

-- Telemetry other than heartbeats, and events.
CREATE TABLE telemetry (
    device_no BIGINT NOT NULL,
    stream TEXT NOT NULL,
    boot_seq BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    ts BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (device_no, stream, boot_seq, seq)
);

-- Up to where each stream of a device is stored without a gap; told to it in `down/sync`.
CREATE TABLE stream_acks (
    device_no BIGINT NOT NULL,
    stream TEXT NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (device_no, stream)
);

CREATE TABLE commands (
    id TEXT PRIMARY KEY NOT NULL,
    org TEXT NOT NULL REFERENCES organizations (id),
    device_id TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    -- Per device, from 1; 0 for a command that somebody published by hand and that was adopted from its status.
    seq BIGINT NOT NULL,
    type TEXT NOT NULL,
    payload TEXT NOT NULL,
    priority BIGINT NOT NULL,
    state TEXT NOT NULL,
    rev BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    progress DOUBLE PRECISION,
    code TEXT,
    reason TEXT,
    result TEXT,
    notes TEXT,
    -- The signed message as published, and its hash.
    message TEXT,
    hash TEXT,
    -- The broker's copy: none, publish (to be made), there, withdraw (to be removed).
    retained TEXT NOT NULL,
    cancel_requested BOOLEAN NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    not_before BIGINT,
    expires_at BIGINT NOT NULL,
    published_at BIGINT,
    finished_at BIGINT
);
CREATE INDEX commands_by_device ON commands (device_id, created_at);
CREATE INDEX commands_open ON commands (device_id, seq) WHERE finished_at IS NULL;
CREATE INDEX commands_by_expiry ON commands (expires_at) WHERE finished_at IS NULL;
CREATE INDEX commands_to_send ON commands (created_at) WHERE retained IN ('publish', 'withdraw');

CREATE TABLE command_history (
    command_id TEXT NOT NULL REFERENCES commands (id) ON DELETE CASCADE,
    n BIGINT NOT NULL,
    state TEXT NOT NULL,
    rev BIGINT NOT NULL,
    ts BIGINT NOT NULL,
    reason TEXT,
    PRIMARY KEY (command_id, n)
);

-- Public halves of the keys that commands were signed with.
CREATE TABLE server_keys (
    kid TEXT PRIMARY KEY NOT NULL,
    public_key TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    retired_at BIGINT
);

CREATE TABLE audit_log (
    n BIGINT PRIMARY KEY NOT NULL,
    org TEXT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT
);
CREATE INDEX audit_log_by_org ON audit_log (org, n);
