SELECT jsonb_build_array(hoso, number::text)::text, json_build_object('hoso', hoso, 'number', number, 'note', note)::text FROM "case".part
