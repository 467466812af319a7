-- SQLite has no partitions: old heartbeats are deleted a few at a time, along the primary key.

SELECT 1;
