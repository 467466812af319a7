-- Heartbeats summed up by minute and by hour, and who leads among several servers.

CREATE TABLE heartbeats_minute (
    device_no BIGINT NOT NULL,
    -- Beginning of the minute, by the device's clock.
    ts BIGINT NOT NULL,
    -- For each metric: smallest, largest, sum, how many, latest.
    cpu_min DOUBLE PRECISION, cpu_max DOUBLE PRECISION, cpu_sum DOUBLE PRECISION, cpu_count BIGINT, cpu_latest DOUBLE PRECISION,
    mem_min DOUBLE PRECISION, mem_max DOUBLE PRECISION, mem_sum DOUBLE PRECISION, mem_count BIGINT, mem_latest DOUBLE PRECISION,
    disk_min DOUBLE PRECISION, disk_max DOUBLE PRECISION, disk_sum DOUBLE PRECISION, disk_count BIGINT, disk_latest DOUBLE PRECISION,
    temp_min DOUBLE PRECISION, temp_max DOUBLE PRECISION, temp_sum DOUBLE PRECISION, temp_count BIGINT, temp_latest DOUBLE PRECISION,
    load_min DOUBLE PRECISION, load_max DOUBLE PRECISION, load_sum DOUBLE PRECISION, load_count BIGINT, load_latest DOUBLE PRECISION,
    level_min DOUBLE PRECISION, level_max DOUBLE PRECISION, level_sum DOUBLE PRECISION, level_count BIGINT,
    level_latest DOUBLE PRECISION,
    PRIMARY KEY (device_no, ts)
);

CREATE TABLE heartbeats_hour (
    device_no BIGINT NOT NULL,
    ts BIGINT NOT NULL,
    cpu_min DOUBLE PRECISION, cpu_max DOUBLE PRECISION, cpu_sum DOUBLE PRECISION, cpu_count BIGINT, cpu_latest DOUBLE PRECISION,
    mem_min DOUBLE PRECISION, mem_max DOUBLE PRECISION, mem_sum DOUBLE PRECISION, mem_count BIGINT, mem_latest DOUBLE PRECISION,
    disk_min DOUBLE PRECISION, disk_max DOUBLE PRECISION, disk_sum DOUBLE PRECISION, disk_count BIGINT, disk_latest DOUBLE PRECISION,
    temp_min DOUBLE PRECISION, temp_max DOUBLE PRECISION, temp_sum DOUBLE PRECISION, temp_count BIGINT, temp_latest DOUBLE PRECISION,
    load_min DOUBLE PRECISION, load_max DOUBLE PRECISION, load_sum DOUBLE PRECISION, load_count BIGINT, load_latest DOUBLE PRECISION,
    level_min DOUBLE PRECISION, level_max DOUBLE PRECISION, level_sum DOUBLE PRECISION, level_count BIGINT,
    level_latest DOUBLE PRECISION,
    PRIMARY KEY (device_no, ts)
);

-- How far heartbeats are summed up: every hour before `upto`, and of that hour the devices up to `device_no`.
CREATE TABLE summed_up (
    name TEXT PRIMARY KEY NOT NULL,
    upto BIGINT NOT NULL,
    device_no BIGINT NOT NULL
);

-- Hours to be summed up again, because a heartbeat of theirs came late. `n` only makes a second one wait for the first.
CREATE TABLE heartbeats_late (
    device_no BIGINT NOT NULL,
    hour BIGINT NOT NULL,
    n BIGINT NOT NULL,
    PRIMARY KEY (device_no, hour)
);

-- Duties that only one of several servers has. A term grows with every change of hands.
CREATE TABLE leases (
    name TEXT PRIMARY KEY NOT NULL,
    holder TEXT NOT NULL,
    term BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
