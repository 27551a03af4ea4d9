-- Audit queue for SQL Server 2016 or later, to be reviewed before it is run. It has been parsed, but not been run on a server.
--
-- The application says who acts and why on its connection, before it changes anything, and again with NULL when it gives the connection back:
--     EXEC sp_set_session_context @key = N'muniment.context', @value = N'{"user_id": 7, "change_reason": "ticket 4711"}';

CREATE SCHEMA [audit];
GO

CREATE TABLE [audit].SYS_AUDIT_QUEUE (
    ID BIGINT IDENTITY(1, 1) NOT NULL PRIMARY KEY,
    TableName NVARCHAR(128) NOT NULL,
    PrimaryKey NVARCHAR(100) NOT NULL,
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
GO

CREATE INDEX IX_Queue_Unprocessed ON [audit].SYS_AUDIT_QUEUE (IsProcessed, QueuedAt);
GO

CREATE INDEX IX_Queue_Table ON [audit].SYS_AUDIT_QUEUE (TableName, QueuedAt DESC);
GO

CREATE INDEX IX_Queue_Processing ON [audit].SYS_AUDIT_QUEUE (ProcessingAttempts, QueuedAt);
GO
