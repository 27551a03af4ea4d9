-- No row is changed, and none returned, if somebody else has moved the follower.
INSERT INTO follower (name, position, state, updated_at)
SELECT $1, $3, $4, $5 WHERE coalesce((SELECT position FROM follower WHERE name = $1), '') = $2
ON CONFLICT (name) DO UPDATE SET position = excluded.position, state = excluded.state, updated_at = excluded.updated_at
