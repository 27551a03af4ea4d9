-- What already has the names that a source would take: its slot, its publication, event triggers.
SELECT (SELECT plugin::text || CASE WHEN active THEN ' active' ELSE '' END FROM pg_replication_slots WHERE slot_name = $1) AS slot,
    EXISTS (SELECT FROM pg_publication WHERE pubname = $1) AS publication,
    ARRAY(SELECT evtname::text FROM pg_event_trigger WHERE evtname LIKE 'muniment\_%') AS event_triggers
