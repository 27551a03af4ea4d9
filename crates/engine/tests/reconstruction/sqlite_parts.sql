SELECT json_array(hoso, CAST(number AS TEXT)), json_object('hoso', hoso, 'number', number, 'note', note) FROM "case".part
