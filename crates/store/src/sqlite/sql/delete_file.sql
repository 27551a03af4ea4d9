DELETE FROM file WHERE path = $1
