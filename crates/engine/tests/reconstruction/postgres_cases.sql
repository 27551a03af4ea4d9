SELECT id::text, json_build_object('id', id, 'we"ird', "we""ird", 'amount', amount, 'big', big, 'flag', flag, 'at', at::text, 'raw', raw::text,
    'list', list::text, 'texts', texts::text, 'doc', doc, 'kept', kept, 'mood', mood::text, 'span', span::text, 'real', real, 'spot', spot::text,
    'code', code::char(4)::text)::text
FROM "case"."hồ ""sơ"""
