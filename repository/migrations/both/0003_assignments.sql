-- Who speaks for an endpoint, as the orchestrator says.
CREATE TABLE assignment (
    endpoint TEXT PRIMARY KEY,
    collector TEXT NOT NULL
);
CREATE INDEX assignment_collector ON assignment (collector);

-- The newest message about a collector: an older one that comes late changes nothing.
CREATE TABLE assignment_told (
    collector TEXT PRIMARY KEY,
    message TEXT NOT NULL
);
