DELETE FROM capture_source WHERE name = $1
