DROP TABLE temp.muniment_undo;
COMMIT;
