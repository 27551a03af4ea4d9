SELECT fingerprint, answer FROM idempotency WHERE log = $1 AND key = $2
