-- An enrolment code may let in more than one box: a delivery of boxes, or a simulated fleet.
ALTER TABLE enrolment_codes ADD COLUMN max_uses BIGINT NOT NULL DEFAULT 1;
ALTER TABLE enrolment_codes ADD COLUMN uses BIGINT NOT NULL DEFAULT 0;
UPDATE enrolment_codes SET uses = 1 WHERE used_at IS NOT NULL;
