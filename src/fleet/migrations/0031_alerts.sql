-- Alerts: rules as rows, what they found, and who does not want to hear of it for a while.

-- Whether the usual rules were made; who deletes one does not want it back.
ALTER TABLE organizations ADD COLUMN alert_rules_made BOOLEAN NOT NULL DEFAULT FALSE;

CREATE TABLE alert_rules (
    id TEXT PRIMARY KEY NOT NULL,
    org TEXT NOT NULL REFERENCES organizations (id),
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    threshold DOUBLE PRECISION,
    clear_threshold DOUBLE PRECISION,
    for_s BIGINT NOT NULL,
    severity TEXT NOT NULL,
    -- Devices with it; all of the organization's when there is none.
    tag TEXT,
    enabled BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX alert_rules_by_org ON alert_rules (org, created_at);

CREATE TABLE alerts (
    id TEXT PRIMARY KEY NOT NULL,
    org TEXT NOT NULL REFERENCES organizations (id),
    -- An alert outlives its rule, so it holds what was said of it.
    rule_id TEXT NOT NULL,
    rule_name TEXT NOT NULL,
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    device_id TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    device_no BIGINT NOT NULL,
    -- What of the device, such as an input; empty for the device itself.
    subject TEXT NOT NULL,
    -- pending, firing, acknowledged, resolved.
    state TEXT NOT NULL,
    value DOUBLE PRECISION,
    detail TEXT NOT NULL,
    since BIGINT NOT NULL,
    clear_since BIGINT,
    -- When time alone may change it.
    due_at BIGINT,
    raised_at BIGINT,
    acknowledged_at BIGINT,
    acknowledged_by TEXT,
    note TEXT,
    resolved_at BIGINT,
    resolution TEXT,
    -- When to think of telling somebody; set in the transaction that raises or resolves it.
    notify_at BIGINT,
    -- Its beginning was told.
    notified BOOLEAN NOT NULL,
    updated_at BIGINT NOT NULL
);
-- One open alert for a rule, a device and a subject, whoever thinks it is to be raised.
CREATE UNIQUE INDEX alerts_once ON alerts (rule_id, device_no, subject) WHERE resolved_at IS NULL;
CREATE INDEX alerts_of_device ON alerts (device_no) WHERE resolved_at IS NULL;
CREATE INDEX alerts_by_org ON alerts (org, id);
CREATE INDEX alerts_open ON alerts (org, id) WHERE resolved_at IS NULL;
CREATE INDEX alerts_by_due ON alerts (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX alerts_by_notify ON alerts (notify_at) WHERE notify_at IS NOT NULL;
CREATE INDEX alerts_by_end ON alerts (resolved_at) WHERE resolved_at IS NOT NULL;

-- What has to be remembered of a device from one heartbeat to the next.
CREATE TABLE alert_memory (
    device_no BIGINT PRIMARY KEY NOT NULL REFERENCES devices (no) ON DELETE CASCADE,
    body TEXT NOT NULL
);

CREATE TABLE silences (
    id TEXT PRIMARY KEY NOT NULL,
    org TEXT NOT NULL REFERENCES organizations (id),
    -- What is given has to fit all together.
    rule_id TEXT,
    device_id TEXT,
    tag TEXT,
    reason TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    starts_at BIGINT NOT NULL,
    ends_at BIGINT NOT NULL
);
CREATE INDEX silences_by_org ON silences (org, ends_at);

-- Who went away lately. Heartbeats, which are most of the changes of these rows, do not touch it.
CREATE INDEX device_state_gone ON device_state (presence_at) WHERE presence = 'offline';
