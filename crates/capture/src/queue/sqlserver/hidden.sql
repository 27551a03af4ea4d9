IF NOT EXISTS (SELECT 1 FROM sys.columns AS c WHERE c.object_id = OBJECT_ID({object}) AND c.name COLLATE Latin1_General_BIN2 = {column})
BEGIN
    RAISERROR (N'%s has no column %s, in this case, to be left out or masked', 16, 1, {name}, {column});
    SET NOEXEC ON;
END;
GO

