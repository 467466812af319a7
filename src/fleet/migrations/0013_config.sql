-- What each device's configuration should be, version by version. Versions count with the device's own: a change that came to
-- it by another way uses one as well.

CREATE TABLE config_versions (
    device_id TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    ver BIGINT NOT NULL,
    document TEXT NOT NULL,
    notes TEXT,
    -- The version that was gone back to.
    restores BIGINT,
    command_id TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (device_id, ver)
);
CREATE INDEX commands_of_config ON commands (device_id) WHERE config_ver IS NOT NULL AND finished_at IS NULL;
