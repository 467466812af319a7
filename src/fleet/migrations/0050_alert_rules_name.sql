-- A rule may be about one device alone, and tell only those whom it names.

ALTER TABLE alert_rules ADD COLUMN device_id TEXT;
-- A JSON array of receivers' identifiers; all of the organization's when there is none.
ALTER TABLE alert_rules ADD COLUMN receivers TEXT;
-- As its rule had it when it was raised: who hears of its beginning hears of its end.
ALTER TABLE alerts ADD COLUMN receivers TEXT;
