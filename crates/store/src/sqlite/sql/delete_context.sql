-- Ends what insert_context said: the database refuses to commit with it.
DELETE FROM muniment_context
