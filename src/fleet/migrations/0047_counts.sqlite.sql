-- How many devices there are by organization and state, counted in the same transaction as every change: `device_counts` as it
-- was last added up, and `device_moves`, what moved since. A state is a device's presence, or that it was decommissioned.

CREATE TABLE device_counts (
    org TEXT NOT NULL,
    state TEXT NOT NULL,
    n BIGINT NOT NULL,
    PRIMARY KEY (org, state)
);
CREATE TABLE device_moves (
    no INTEGER PRIMARY KEY,
    org TEXT NOT NULL,
    state TEXT NOT NULL,
    n BIGINT NOT NULL
);

CREATE TRIGGER device_state_made AFTER INSERT ON device_state BEGIN
    INSERT INTO device_moves (org, state, n)
        SELECT org, new.presence, 1 FROM devices WHERE no = new.device_no AND decommissioned_at IS NULL;
END;
CREATE TRIGGER device_state_gone AFTER DELETE ON device_state BEGIN
    INSERT INTO device_moves (org, state, n)
        SELECT org, old.presence, -1 FROM devices WHERE no = old.device_no AND decommissioned_at IS NULL;
END;
CREATE TRIGGER device_state_moved AFTER UPDATE OF presence ON device_state WHEN old.presence <> new.presence BEGIN
    INSERT INTO device_moves (org, state, n)
        SELECT org, old.presence, -1 FROM devices WHERE no = new.device_no AND decommissioned_at IS NULL;
    INSERT INTO device_moves (org, state, n)
        SELECT org, new.presence, 1 FROM devices WHERE no = new.device_no AND decommissioned_at IS NULL;
END;
CREATE TRIGGER device_service AFTER UPDATE OF decommissioned_at ON devices
    WHEN (old.decommissioned_at IS NULL) <> (new.decommissioned_at IS NULL) BEGIN
    INSERT INTO device_moves (org, state, n)
        VALUES (new.org, 'decommissioned', CASE WHEN new.decommissioned_at IS NULL THEN -1 ELSE 1 END);
    INSERT INTO device_moves (org, state, n)
        SELECT new.org, presence, CASE WHEN new.decommissioned_at IS NULL THEN 1 ELSE -1 END
        FROM device_state WHERE device_no = new.no;
END;

INSERT INTO device_counts (org, state, n)
    SELECT d.org, CASE WHEN d.decommissioned_at IS NULL THEN s.presence ELSE 'decommissioned' END, COUNT(*)
    FROM devices d JOIN device_state s ON s.device_no = d.no GROUP BY 1, 2;

-- What there is now.
CREATE VIEW device_census AS
    SELECT org, state, CAST(SUM(n) AS BIGINT) AS n
    FROM (SELECT org, state, n FROM device_counts UNION ALL SELECT org, state, n FROM device_moves) AS parts
    GROUP BY org, state;
