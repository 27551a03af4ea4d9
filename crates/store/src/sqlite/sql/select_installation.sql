SELECT origin, created_at FROM installation WHERE id = 1
