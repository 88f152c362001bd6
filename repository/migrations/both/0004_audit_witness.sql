-- What orchestrators said of their audit logs, once and for all.
CREATE TABLE audit_witness (
    orchestrator TEXT NOT NULL,
    number BIGINT NOT NULL,
    hash TEXT NOT NULL,
    received BIGINT NOT NULL,
    PRIMARY KEY (orchestrator, number, hash)
);
