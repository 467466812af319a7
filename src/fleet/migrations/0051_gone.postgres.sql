-- PostgreSQL knows how many are away and takes the index that has only those.
SELECT 1;
