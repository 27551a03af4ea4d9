SELECT position, state FROM follower WHERE name = $1
