INSERT INTO muniment.queue_source AS s (name, schemas, tables, excluded_schemas, excluded_tables, excluded_columns, masked_schemas, masked_tables, masked_columns, baseline)
VALUES ({name}, {schemas}, {tables}, {excluded_schemas}, {excluded_tables}, {excluded_columns}, {masked_schemas}, {masked_tables}, {masked_columns}, {baseline})
ON CONFLICT (name) DO UPDATE SET schemas = s.schemas || excluded.schemas, tables = s.tables || excluded.tables,
    excluded_schemas = s.excluded_schemas || excluded.excluded_schemas, excluded_tables = s.excluded_tables || excluded.excluded_tables,
    excluded_columns = s.excluded_columns || excluded.excluded_columns,
    masked_schemas = s.masked_schemas || excluded.masked_schemas, masked_tables = s.masked_tables || excluded.masked_tables,
    masked_columns = s.masked_columns || excluded.masked_columns, baseline = excluded.baseline
