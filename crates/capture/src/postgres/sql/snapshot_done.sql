UPDATE muniment.attached SET baseline_done = baseline WHERE source = $1 AND relation = $2 AND baseline = $3
