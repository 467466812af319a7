-- Heartbeats that came so late that their hour may not be summed up from raw rows any more: they are added to what there is,
-- each once. Kept for a while afterwards, so that one that comes again is known.

CREATE TABLE heartbeats_overdue (
    device_no BIGINT NOT NULL,
    ts BIGINT NOT NULL,
    boot_seq BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    cpu_percent DOUBLE PRECISION,
    mem_percent DOUBLE PRECISION,
    disk_free_gb DOUBLE PRECISION,
    temperature_c DOUBLE PRECISION,
    load_avg DOUBLE PRECISION,
    degradation_level BIGINT,
    -- When it was added, or summed up with the others of its hour.
    merged_at BIGINT,
    PRIMARY KEY (device_no, ts, boot_seq, seq)
);
CREATE INDEX heartbeats_overdue_by_merged ON heartbeats_overdue (merged_at);
