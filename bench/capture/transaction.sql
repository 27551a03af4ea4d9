\set id random(1, 200000)
\set fresh random(1000000, 2000000000)
BEGIN;
UPDATE app.cases SET status = 'checked', amount = amount + 1, updated_at = now() WHERE id = :id;
INSERT INTO app.cases VALUES (:fresh, 'HS-' || :fresh, 'Application of a new citizen', 'open', 1, 17, 12.50, now(), now(), false, '1 Main Street, District 1', 'received by post');
DELETE FROM app.cases WHERE id = :fresh;
COMMIT;
