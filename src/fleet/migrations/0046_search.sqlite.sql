-- What a search looks through. A file is read from end to end: quick enough for as many devices as one file is for.

ALTER TABLE devices ADD COLUMN search_text TEXT
    GENERATED ALWAYS AS (lower(id || char(10) || name || char(10) || coalesce(location, '') || char(10) || tags)) VIRTUAL;
