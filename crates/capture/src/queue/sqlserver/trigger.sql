
-- One row of the queue for each row of {table}, with its values before and after, in the transaction that changes it. An UPDATE that changes a key arrives as DELETE and
-- INSERT: without the key there is no telling which old row became which new one.
CREATE TRIGGER {trigger} ON {table}
AFTER INSERT, UPDATE, DELETE
AS
BEGIN
    SET NOCOUNT ON;

    INSERT INTO [audit].SYS_AUDIT_QUEUE
        (TableName, PrimaryKey, Operation, OldValues, NewValues, TransactionID, Context, SessionUser, ApplicationName, ClientAddress)
    SELECT
        {name},
        LEFT(COALESCE({new_key}, {old_key}), 100),
        CASE
            WHEN d.{inserted_key} IS NULL THEN N'INSERT'
            WHEN i.{inserted_key} IS NULL THEN N'DELETE'
            ELSE N'UPDATE'
        END,
        CASE WHEN d.{inserted_key} IS NOT NULL THEN
            (SELECT o.* FROM deleted AS o WHERE {image_of_old} FOR JSON PATH, INCLUDE_NULL_VALUES, WITHOUT_ARRAY_WRAPPER)
        END,
        CASE WHEN i.{inserted_key} IS NOT NULL THEN
            (SELECT n.* FROM inserted AS n WHERE {image_of_new} FOR JSON PATH, INCLUDE_NULL_VALUES, WITHOUT_ARRAY_WRAPPER)
        END,
        CURRENT_TRANSACTION_ID(),
        CONVERT(NVARCHAR(4000), SESSION_CONTEXT(N'muniment.context')),
        ORIGINAL_LOGIN(),
        APP_NAME(),
        CONVERT(NVARCHAR(48), CONNECTIONPROPERTY('client_net_address'))
    FROM inserted AS i
    FULL OUTER JOIN deleted AS d ON {join};
END;
GO
