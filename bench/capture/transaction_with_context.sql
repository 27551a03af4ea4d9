\set id random(1, 200000)
\set fresh random(1000000, 2000000000)
\startpipeline
BEGIN;
SELECT muniment.context(('{"user_id": 17, "user_name": "lan.nguyen", "session_id": "s-4711", "business_context": "case handling", "change_reason": "papers checked", "correlation_id": "c-' || :fresh || '"}')::jsonb);
\endpipeline
UPDATE app.cases SET status = 'checked', amount = amount + 1, updated_at = now() WHERE id = :id;
INSERT INTO app.cases VALUES (:fresh, 'HS-' || :fresh, 'Application of a new citizen', 'open', 1, 17, 12.50, now(), now(), false, '1 Main Street, District 1', 'received by post');
DELETE FROM app.cases WHERE id = :fresh;
COMMIT;
