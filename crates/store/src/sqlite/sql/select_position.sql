SELECT value FROM position WHERE source = $1
