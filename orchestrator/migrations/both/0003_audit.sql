-- What was done, by whom: each entry carries the hash of the one before. And what the orchestrator has signed of it.
CREATE TABLE audit (number BIGINT PRIMARY KEY, entry TEXT NOT NULL, hash TEXT NOT NULL);
CREATE TABLE audit_checkpoint (number BIGINT PRIMARY KEY, sealed TEXT NOT NULL);
