-- Who is told of alerts, and what is on its way to them.

CREATE TABLE alert_receivers (
    id TEXT PRIMARY KEY NOT NULL,
    org TEXT NOT NULL REFERENCES organizations (id),
    name TEXT NOT NULL,
    -- webhook or email.
    kind TEXT NOT NULL,
    -- A URL, or a JSON array of addresses.
    target TEXT NOT NULL,
    -- What a webhook's messages are signed with.
    secret TEXT,
    min_severity TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX alert_receivers_by_org ON alert_receivers (org, created_at);

CREATE TABLE alert_deliveries (
    id TEXT PRIMARY KEY NOT NULL,
    org TEXT NOT NULL,
    receiver_id TEXT NOT NULL REFERENCES alert_receivers (id) ON DELETE CASCADE,
    -- gathering, pending, sent, failed.
    state TEXT NOT NULL,
    test BOOLEAN NOT NULL,
    attempts BIGINT NOT NULL,
    next_at BIGINT,
    created_at BIGINT NOT NULL,
    sent_at BIGINT,
    error TEXT,
    -- The message, once nothing more is gathered for it.
    body TEXT
);
-- What comes within a short time goes into one message.
CREATE UNIQUE INDEX alert_deliveries_gathering ON alert_deliveries (receiver_id) WHERE state = 'gathering';
CREATE INDEX alert_deliveries_by_next ON alert_deliveries (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX alert_deliveries_by_receiver ON alert_deliveries (receiver_id, id);
CREATE INDEX alert_deliveries_by_age ON alert_deliveries (created_at) WHERE next_at IS NULL;

CREATE TABLE alert_delivery_items (
    delivery_id TEXT NOT NULL REFERENCES alert_deliveries (id) ON DELETE CASCADE,
    alert_id TEXT NOT NULL,
    -- firing or resolved.
    event TEXT NOT NULL,
    PRIMARY KEY (delivery_id, alert_id, event)
);
