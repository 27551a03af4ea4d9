SELECT CAST(id AS TEXT), json_object('id', id, 'we"ird', "we""ird", 'amount', amount, 'flag', flag, 'raw', iif(raw IS NULL, NULL, '\x' || lower(hex(raw)))) FROM "case"."hồ ""sơ"""
