-- Columns of a table of a replication source that are left out or masked, whatever their names were when it was attached.
SELECT c.attname::text AS name, coalesce(to_jsonb(a) -> 'hidden_numbers' @> to_jsonb(c.attnum::int4), false) AS is_excluded,
    coalesce(to_jsonb(a) -> 'masked_numbers' @> to_jsonb(c.attnum::int4), false) AS is_masked
FROM muniment.attached a JOIN pg_attribute c ON c.attrelid = a.relation AND NOT c.attisdropped
WHERE a.relation = $1
