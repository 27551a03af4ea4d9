BEGIN IMMEDIATE;
-- Rows that went by ON DELETE CASCADE come again before the row that they belong to.
PRAGMA defer_foreign_keys = ON;
-- Holds a row for every statement that found what it looked for. A check that fails rolls back, and this table with it.
CREATE TEMP TABLE muniment_undo (found INTEGER NOT NULL CHECK (found = 1));
