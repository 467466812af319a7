-- What every heartbeat changes of a device, apart from what few messages change: one narrow row.
-- The other half of a page is where its rows' next versions go: a heartbeat then touches no index.
CREATE TABLE device_pulse (
    device_no BIGINT PRIMARY KEY NOT NULL REFERENCES devices (no) ON DELETE CASCADE,
    last_seen BIGINT,
    -- Seconds between its heartbeats, as it last said.
    interval_s BIGINT,
    -- Its latest heartbeat.
    heartbeat_boot BIGINT NOT NULL,
    heartbeat_seq BIGINT NOT NULL,
    heartbeat_ts BIGINT,
    -- Up to where its heartbeats are stored without a gap; of other streams `stream_acks` tells it.
    heartbeat_mark BIGINT NOT NULL,
    -- It was found silent, and no heartbeat came since.
    silent BOOLEAN NOT NULL
) WITH (fillfactor = 45);
INSERT INTO device_pulse (device_no, last_seen, interval_s, heartbeat_boot, heartbeat_seq, heartbeat_ts, heartbeat_mark, silent)
    SELECT s.device_no, s.last_seen, s.interval_s, s.heartbeat_boot, s.heartbeat_seq, s.heartbeat_ts,
        COALESCE((SELECT a.seq FROM stream_acks a WHERE a.device_no = s.device_no AND a.stream = 'hb'), 0),
        COALESCE(s.presence_reason = 'silent', FALSE)
    FROM device_state s;
DELETE FROM stream_acks WHERE stream = 'hb';

DROP INDEX device_state_by_presence;
ALTER TABLE device_state DROP COLUMN last_seen;
ALTER TABLE device_state DROP COLUMN interval_s;
ALTER TABLE device_state DROP COLUMN heartbeat_boot;
ALTER TABLE device_state DROP COLUMN heartbeat_seq;
ALTER TABLE device_state DROP COLUMN heartbeat_ts;
CREATE INDEX device_state_by_presence ON device_state (presence, device_no);

-- Who was heard of, batch by batch, for whoever looks at what they said: an index of `last_seen` would move with every heartbeat.
CREATE TABLE heard (
    at BIGINT NOT NULL,
    -- Their numbers, a JSON array.
    devices TEXT NOT NULL
);
CREATE INDEX heard_at ON heard (at);
