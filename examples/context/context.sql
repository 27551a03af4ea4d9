-- Who acts and why, in the transaction that changes something.
BEGIN;
SELECT muniment.context('{"user_id": 7, "user_name": "lan", "session_id": "s-81", "ip_address": "10.0.0.7", "change_reason": "ticket 4711"}');
-- UPDATE …
COMMIT;

-- The same with named arguments.
BEGIN;
SELECT muniment.set_context(user_name => 'lan', change_reason => 'ticket 4711');
-- UPDATE …
COMMIT;
