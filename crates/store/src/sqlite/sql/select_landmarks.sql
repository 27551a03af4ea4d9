SELECT number, subject FROM landmark WHERE type = $1 ORDER BY number
