\set first random(1, 199900)
UPDATE app.cases SET amount = amount + 1, updated_at = now() WHERE id BETWEEN :first AND :first + 99;
