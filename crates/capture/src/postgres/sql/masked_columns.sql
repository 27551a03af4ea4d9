-- Columns that were masked under another name.
SELECT c.attname::text FROM muniment.attached a JOIN pg_catalog.pg_attribute c ON c.attrelid = a.relation AND NOT c.attisdropped
WHERE a.relation = $1 AND to_jsonb(a) -> 'masked_numbers' @> to_jsonb(c.attnum::int4)
