-- The broker's copy of a command has one more state, `again`: removed once more after the removal that is under way.

DROP INDEX commands_to_send;
CREATE INDEX commands_to_send ON commands (created_at) WHERE retained IN ('publish', 'withdraw', 'again');
