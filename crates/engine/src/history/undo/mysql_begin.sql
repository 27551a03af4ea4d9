-- Written by the rules of MySQL 8.0; run it with a client that stops at the first error, as mysql does without --force.
CREATE TEMPORARY TABLE muniment_undo (found INT NOT NULL CHECK (found = 1)) ENGINE = InnoDB;
START TRANSACTION;
