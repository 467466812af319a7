-- What a search looks through, with an index of its triples of letters where the server has that extension (contrib's pg_trgm,
-- which an owner of a database may create). Without it a search reads every device: right, and slow for a million.

ALTER TABLE devices ADD COLUMN search_text TEXT
    GENERATED ALWAYS AS (lower(id || chr(10) || name || chr(10) || coalesce(location, '') || chr(10) || tags)) STORED;

DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
    CREATE INDEX devices_search ON devices USING gin (search_text gin_trgm_ops);
EXCEPTION WHEN insufficient_privilege OR undefined_file OR feature_not_supported OR undefined_object THEN
    RAISE WARNING 'no index for searches: %', SQLERRM;
END $$;
