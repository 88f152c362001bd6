-- Who speaks for an endpoint, as the orchestrator says.
CREATE TABLE assignment (
    endpoint TEXT PRIMARY KEY,
    collector TEXT NOT NULL
);
CREATE INDEX assignment_collector ON assignment (collector);
