-- Heartbeats and their sums in one table a span of time, so that old ones are dropped whole. What was there becomes the
-- partition of everything that has no other; the server makes the others, ahead, and moves over what belongs there.

ALTER TABLE heartbeats RENAME TO heartbeats_other;
ALTER INDEX heartbeats_pkey RENAME TO heartbeats_other_pkey;
CREATE TABLE heartbeats (LIKE heartbeats_other, PRIMARY KEY (device_no, ts, boot_seq, seq)) PARTITION BY RANGE (ts);
ALTER TABLE heartbeats ATTACH PARTITION heartbeats_other DEFAULT;

ALTER TABLE heartbeats_minute RENAME TO heartbeats_minute_other;
ALTER INDEX heartbeats_minute_pkey RENAME TO heartbeats_minute_other_pkey;
CREATE TABLE heartbeats_minute (LIKE heartbeats_minute_other, PRIMARY KEY (device_no, ts)) PARTITION BY RANGE (ts);
ALTER TABLE heartbeats_minute ATTACH PARTITION heartbeats_minute_other DEFAULT;

ALTER TABLE heartbeats_hour RENAME TO heartbeats_hour_other;
ALTER INDEX heartbeats_hour_pkey RENAME TO heartbeats_hour_other_pkey;
CREATE TABLE heartbeats_hour (LIKE heartbeats_hour_other, PRIMARY KEY (device_no, ts)) PARTITION BY RANGE (ts);
ALTER TABLE heartbeats_hour ATTACH PARTITION heartbeats_hour_other DEFAULT;
