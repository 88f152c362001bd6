-- Observations that were taken over had their numbers already.
SELECT setval(pg_get_serial_sequence('observed', 'id'), (SELECT COALESCE(MAX(id), 0) + 1 FROM observed), false);
