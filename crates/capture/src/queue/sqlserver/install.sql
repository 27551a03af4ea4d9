-- Audit queue for SQL Server 2016 SP1 or later, to be reviewed before it is run by a member of db_owner. It has been parsed, but not been run on a server.
-- It may be run again: the queue stays, procedures and triggers are made anew. After an error nothing more of it is run.
--
-- The application says who acts and why on its connection, before it changes anything, and again with NULL when it gives the connection back:
--     EXEC sp_set_session_context @key = N'muniment.context', @value = N'{"user_id": 7, "change_reason": "ticket 4711"}';
--
-- A table with a trigger takes no OUTPUT clause without INTO. Entity Framework Core 7 and later writes one unless it knows of the trigger:
--     entity.ToTable(table => table.HasTrigger("tr_TABLE_Audit"));

SET NOEXEC OFF;
GO

SET ANSI_NULLS ON;
SET QUOTED_IDENTIFIER ON;
SET XACT_ABORT ON;
GO

IF SCHEMA_ID(N'audit') IS NULL
    EXEC (N'CREATE SCHEMA [audit] AUTHORIZATION [dbo]');
GO

-- A sequence, since an IDENTITY column would change what @@IDENTITY tells the application.
IF OBJECT_ID(N'[audit].QueueNumbers') IS NULL
    CREATE SEQUENCE [audit].QueueNumbers AS BIGINT START WITH 1 CACHE 1000;
GO

IF OBJECT_ID(N'[audit].SYS_AUDIT_QUEUE') IS NULL
BEGIN
    CREATE TABLE [audit].SYS_AUDIT_QUEUE (
        ID BIGINT NOT NULL PRIMARY KEY,
        TableName NVARCHAR(257) NOT NULL,
        PrimaryKey NVARCHAR(MAX) NOT NULL,
        Operation NVARCHAR(10) NOT NULL,
        QueuedAt DATETIME2 NOT NULL DEFAULT SYSUTCDATETIME(),
        ProcessedAt DATETIME2 NULL,
        IsProcessed BIT NOT NULL DEFAULT 0,
        ProcessingAttempts INT NOT NULL DEFAULT 0,
        LastError NVARCHAR(1000) NULL,
        OldValues NVARCHAR(MAX) NULL,
        NewValues NVARCHAR(MAX) NULL,
        TransactionID BIGINT NOT NULL,
        Context NVARCHAR(4000) NULL,
        SessionUser NVARCHAR(128) NOT NULL,
        ApplicationName NVARCHAR(128) NULL,
        ClientAddress NVARCHAR(48) NULL
    );

    CREATE INDEX IX_Queue_Unprocessed ON [audit].SYS_AUDIT_QUEUE (IsProcessed, QueuedAt);

    CREATE INDEX IX_Queue_Table ON [audit].SYS_AUDIT_QUEUE (TableName, QueuedAt DESC);

    CREATE INDEX IX_Queue_Processing ON [audit].SYS_AUDIT_QUEUE (ProcessingAttempts, QueuedAt);

    CREATE INDEX IX_Queue_Next ON [audit].SYS_AUDIT_QUEUE (IsProcessed, ID);

    ALTER TABLE [audit].SYS_AUDIT_QUEUE SET (LOCK_ESCALATION = DISABLE);
END;
GO

IF COLUMNPROPERTY(OBJECT_ID(N'[audit].SYS_AUDIT_QUEUE'), N'ID', N'IsIdentity') = 1
BEGIN
    RAISERROR (N'[audit].SYS_AUDIT_QUEUE is one of an earlier version, numbered by IDENTITY: process it, drop it with its procedures and triggers, and run this again', 16, 1);
    SET NOEXEC ON;
END;
GO

