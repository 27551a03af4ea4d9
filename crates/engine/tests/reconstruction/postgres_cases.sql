SELECT id::text, json_build_object('id', id, 'we"ird', "we""ird", 'amount', amount, 'big', big, 'flag', flag, 'at', at::text, 'raw', raw::text,
    'list', list::text, 'texts', texts::text,
    'doc', CASE WHEN doc = 'null' OR doc ? '$hex' THEN ('{"$json":' || to_json(doc::text) || '}')::json ELSE doc::json END,
    'kept', CASE WHEN kept::text = 'null' THEN '{"$json":"null"}' ELSE kept END, 'mood', mood::text, 'span', span::text, 'real', real, 'spot', spot::text,
    'code', code::char(4)::text)::text
FROM "case"."hồ ""sơ"""
