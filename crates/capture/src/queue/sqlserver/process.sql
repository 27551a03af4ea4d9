-- Hands out the next rows in order and marks them, in one transaction of the caller's: what fails is rolled back and comes again. No READPAST: a row of a transaction
-- that still runs makes the reader wait, so that none is passed by. A transaction that changes a row after another one has a higher number for it. No HOLDLOCK: that
-- would keep writers from adding rows while the caller works.
CREATE OR ALTER PROCEDURE [audit].ProcessAuditQueue (@BatchSize INT = 1000)
AS
BEGIN
    SET NOCOUNT ON;
    SET XACT_ABORT ON;

    DECLARE @Batch TABLE (ID BIGINT NOT NULL PRIMARY KEY);

    INSERT INTO @Batch (ID)
    SELECT TOP (@BatchSize) q.ID
    FROM [audit].SYS_AUDIT_QUEUE AS q WITH (UPDLOCK, INDEX (IX_Queue_Next))
    WHERE q.IsProcessed = 0 AND q.ProcessingAttempts < 5
    ORDER BY q.ID;

    UPDATE q
    SET IsProcessed = 1, ProcessedAt = SYSUTCDATETIME()
    FROM [audit].SYS_AUDIT_QUEUE AS q
    INNER JOIN @Batch AS b ON b.ID = q.ID;

    SELECT q.ID, q.TableName, q.PrimaryKey, q.Operation, q.QueuedAt, q.OldValues, q.NewValues, q.TransactionID, q.Context, q.SessionUser, q.ApplicationName, q.ClientAddress
    FROM [audit].SYS_AUDIT_QUEUE AS q
    INNER JOIN @Batch AS b ON b.ID = q.ID
    ORDER BY q.ID;
END;
GO

-- A row that could not be processed: after the fifth attempt it is a dead letter, which stays and is left out.
CREATE OR ALTER PROCEDURE [audit].FailAuditQueueRow (@ID BIGINT, @Error NVARCHAR(1000))
AS
BEGIN
    SET NOCOUNT ON;

    UPDATE [audit].SYS_AUDIT_QUEUE
    SET IsProcessed = 0, ProcessedAt = NULL, ProcessingAttempts = ProcessingAttempts + 1, LastError = @Error
    WHERE ID = @ID;
END;
GO

-- Removes what was processed, a few rows at a time, so that little is locked at once.
CREATE OR ALTER PROCEDURE [audit].ClearAuditQueue (@KeepDays INT = 1)
AS
BEGIN
    SET NOCOUNT ON;

    DECLARE @Removed INT = 1;

    WHILE @Removed > 0
    BEGIN
        DELETE TOP (1000) FROM [audit].SYS_AUDIT_QUEUE
        WHERE IsProcessed = 1 AND ProcessedAt < DATEADD(DAY, -@KeepDays, SYSUTCDATETIME());

        SET @Removed = @@ROWCOUNT;
    END;
END;
GO

SET NOEXEC OFF;
GO
