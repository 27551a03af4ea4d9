IF OBJECT_ID({object}, N'U') IS NULL
BEGIN
    RAISERROR (N'there is no table %s', 16, 1, {name});
    SET NOEXEC ON;
END;
GO

IF NOT EXISTS (
    SELECT 1
    FROM sys.indexes AS x
    WHERE x.object_id = OBJECT_ID({object}) AND x.is_unique = 1 AND x.has_filter = 0
        AND NOT EXISTS (
            SELECT 1
            FROM sys.index_columns AS k
            INNER JOIN sys.columns AS c ON c.object_id = k.object_id AND c.column_id = k.column_id
            WHERE k.object_id = x.object_id AND k.index_id = x.index_id AND k.is_included_column = 0
                AND (c.is_nullable = 1 OR c.name NOT IN ({key_names}))
        )
)
BEGIN
    RAISERROR (N'the columns given as the key of %s are none: a unique index over them, without NULL, is needed to pair old and new rows', 16, 1, {name});
    SET NOEXEC ON;
END;
GO

IF EXISTS (
    SELECT 1
    FROM sys.columns AS c
    INNER JOIN sys.types AS t ON t.user_type_id = c.user_type_id
    WHERE c.object_id = OBJECT_ID({object})
        AND (TYPE_NAME(c.system_type_id) IN (N'text', N'ntext', N'image') OR t.is_assembly_type = 1 OR CHARINDEX(N'.', c.name) > 0)
)
BEGIN
    RAISERROR (N'%s has a column whose type (text, ntext, image, geometry, geography, hierarchyid or another CLR type) or whose name (a dot) FOR JSON or a trigger can not take', 16, 1, {name});
    SET NOEXEC ON;
END;
GO

IF EXISTS (
    SELECT 1
    FROM sys.objects AS o
    INNER JOIN sys.schemas AS s ON s.schema_id = o.schema_id
    CROSS JOIN sys.objects AS q
    INNER JOIN sys.schemas AS r ON r.schema_id = q.schema_id
    WHERE o.object_id = OBJECT_ID({object}) AND q.object_id = OBJECT_ID(N'[audit].SYS_AUDIT_QUEUE')
        AND COALESCE(o.principal_id, s.principal_id) <> COALESCE(q.principal_id, r.principal_id)
)
BEGIN
    RAISERROR (N'%s and [audit].SYS_AUDIT_QUEUE belong to different owners: whoever changes the table could not write to the queue', 16, 1, {name});
    SET NOEXEC ON;
END;
GO

{checks}-- One row of the queue for each row of {table}, with its values before and after, in the transaction that changes it. An UPDATE that changes a key arrives as DELETE and
-- INSERT: without the key there is no telling which old row became which new one.
CREATE OR ALTER TRIGGER {trigger} ON {table}
AFTER INSERT, UPDATE, DELETE
AS
BEGIN
    SET NOCOUNT ON;
    SET ROWCOUNT 0;

    IF NOT EXISTS (SELECT 1 FROM inserted) AND NOT EXISTS (SELECT 1 FROM deleted)
        RETURN;

    INSERT INTO [audit].SYS_AUDIT_QUEUE
        (ID, TableName, PrimaryKey, Operation, OldValues, NewValues, TransactionID, Context, SessionUser, ApplicationName, ClientAddress)
    SELECT
        NEXT VALUE FOR [audit].QueueNumbers OVER (ORDER BY CASE WHEN i.{inserted_key} IS NULL THEN 0 ELSE 1 END),
        {name},
        COALESCE({new_key}, {old_key}),
        CASE
            WHEN d.{inserted_key} IS NULL THEN N'INSERT'
            WHEN i.{inserted_key} IS NULL THEN N'DELETE'
            ELSE N'UPDATE'
        END,
        CASE WHEN d.{inserted_key} IS NOT NULL THEN {old_values} END,
        CASE WHEN i.{inserted_key} IS NOT NULL THEN {new_values} END,
        CURRENT_TRANSACTION_ID(),
        CONVERT(NVARCHAR(4000), SESSION_CONTEXT(N'muniment.context')),
        ORIGINAL_LOGIN(),
        APP_NAME(),
        CONVERT(NVARCHAR(48), CONNECTIONPROPERTY('client_net_address'))
    FROM inserted AS i
    FULL OUTER JOIN deleted AS d ON {join};
END;
GO

-- Before the table's other triggers, so that what they change comes after what made them fire.
IF NOT EXISTS (
    SELECT 1
    FROM sys.triggers AS t
    INNER JOIN sys.trigger_events AS e ON e.object_id = t.object_id
    WHERE t.parent_id = OBJECT_ID({object}) AND e.is_first = 1
)
BEGIN
    EXEC sp_settriggerorder @triggername = {trigger_name}, @order = N'First', @stmttype = N'INSERT';
    EXEC sp_settriggerorder @triggername = {trigger_name}, @order = N'First', @stmttype = N'UPDATE';
    EXEC sp_settriggerorder @triggername = {trigger_name}, @order = N'First', @stmttype = N'DELETE';
END;
GO

