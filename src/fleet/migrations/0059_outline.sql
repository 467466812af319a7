-- What the rules could see of a device's latest heartbeat, in a number: while it stays the same, nobody has to look again.
ALTER TABLE device_pulse ADD COLUMN outline BIGINT NOT NULL DEFAULT 0;
-- As `devices` says; here as well, so that storing heartbeats reads no other table.
ALTER TABLE device_pulse ADD COLUMN in_service BOOLEAN NOT NULL DEFAULT TRUE;
UPDATE device_pulse SET in_service = FALSE
    WHERE device_no IN (SELECT no FROM devices WHERE decommissioned_at IS NOT NULL);

-- Devices to look at, batch by batch; a row goes when they were.
DROP TABLE heard;
CREATE TABLE to_look_at (
    -- ULID.
    id TEXT PRIMARY KEY NOT NULL,
    -- Their numbers, a JSON array.
    devices TEXT NOT NULL
);
