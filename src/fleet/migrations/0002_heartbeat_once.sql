-- A device's latest heartbeat is a row of `heartbeats`; `device_state` says which. It was kept twice before.

ALTER TABLE device_state DROP COLUMN heartbeat;
