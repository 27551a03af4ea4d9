-- A table with an identity column needs SET IDENTITY_INSERT before a row is inserted again.
SET XACT_ABORT ON;
BEGIN TRANSACTION;
