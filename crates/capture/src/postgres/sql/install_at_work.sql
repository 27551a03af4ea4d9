-- The transactions in which Muniment itself changes tables: what they do is not reported as the application's DDL. Not a setting, which anybody could make.
CREATE TABLE IF NOT EXISTS muniment.at_work (transaction_id xid8 PRIMARY KEY);
REVOKE ALL ON muniment.at_work FROM PUBLIC;
DELETE FROM muniment.at_work WHERE transaction_id < pg_snapshot_xmin(pg_current_snapshot())
