-- How many devices there are by organization and state, counted in the same transaction as every change: `device_counts` as it
-- was last added up, and `device_moves`, what moved since. A state is a device's presence, or that it was decommissioned.
--
-- What moves is a row of its own, never a counter: transactions that change many devices at once do not wait for each other. Two
-- that change the same device both hold its row of `device_state`, so each sees what the other did.

CREATE TABLE device_counts (
    org TEXT NOT NULL,
    state TEXT NOT NULL,
    n BIGINT NOT NULL,
    PRIMARY KEY (org, state)
);
CREATE TABLE device_moves (
    no BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org TEXT NOT NULL,
    state TEXT NOT NULL,
    n BIGINT NOT NULL
);

CREATE FUNCTION device_state_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO device_moves (org, state, n)
            SELECT org, OLD.presence, -1 FROM devices WHERE no = OLD.device_no AND decommissioned_at IS NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO device_moves (org, state, n)
            SELECT org, NEW.presence, 1 FROM devices WHERE no = NEW.device_no AND decommissioned_at IS NULL;
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION device_service_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO device_moves (org, state, n)
        VALUES (NEW.org, 'decommissioned', CASE WHEN NEW.decommissioned_at IS NULL THEN -1 ELSE 1 END);
    INSERT INTO device_moves (org, state, n)
        SELECT NEW.org, presence, CASE WHEN NEW.decommissioned_at IS NULL THEN 1 ELSE -1 END
        FROM device_state WHERE device_no = NEW.no;
    RETURN NULL;
END $$;
-- They hold other servers' writes off until this migration is over: what is counted below is all there is.
CREATE TRIGGER device_state_made AFTER INSERT OR DELETE ON device_state
    FOR EACH ROW EXECUTE FUNCTION device_state_counted();
CREATE TRIGGER device_state_moved AFTER UPDATE OF presence ON device_state
    FOR EACH ROW WHEN (OLD.presence <> NEW.presence) EXECUTE FUNCTION device_state_counted();
CREATE TRIGGER device_service AFTER UPDATE OF decommissioned_at ON devices
    FOR EACH ROW WHEN ((OLD.decommissioned_at IS NULL) <> (NEW.decommissioned_at IS NULL))
    EXECUTE FUNCTION device_service_counted();

INSERT INTO device_counts (org, state, n)
    SELECT d.org, CASE WHEN d.decommissioned_at IS NULL THEN s.presence ELSE 'decommissioned' END, COUNT(*)
    FROM devices d JOIN device_state s ON s.device_no = d.no GROUP BY 1, 2;

-- What there is now.
CREATE VIEW device_census AS
    SELECT org, state, CAST(SUM(n) AS BIGINT) AS n
    FROM (SELECT org, state, n FROM device_counts UNION ALL SELECT org, state, n FROM device_moves) AS parts
    GROUP BY org, state;
