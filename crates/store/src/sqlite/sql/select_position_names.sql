SELECT source FROM position ORDER BY source
