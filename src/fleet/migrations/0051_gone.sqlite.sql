-- Who went away lately: SQLite took another index than the one that only has those who are away, and read all of them each time.
-- Heartbeats change neither column, so they do not touch it.
DROP INDEX device_state_gone;
CREATE INDEX device_state_went ON device_state (presence, presence_at);
