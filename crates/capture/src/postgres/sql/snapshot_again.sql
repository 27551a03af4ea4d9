-- All tables need a new baseline, since changes were missed.
UPDATE muniment.attached a SET baseline = nextval('muniment.baseline') FROM muniment.source s WHERE a.source = $1 AND s.name = a.source AND s.baseline
