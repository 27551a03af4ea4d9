SELECT identity, attribution, baseline FROM muniment.source WHERE name = $1
