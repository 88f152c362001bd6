-- Endpoints that turned out to be others: what is known of them is known of those. What was stored stays as it was.
CREATE TABLE endpoint_alias (endpoint TEXT PRIMARY KEY, alias_of TEXT NOT NULL);
CREATE INDEX endpoint_alias_of ON endpoint_alias (alias_of);
-- The latest message that told of them.
CREATE TABLE endpoint_alias_told (id BIGINT PRIMARY KEY, message TEXT NOT NULL);
-- The newest verdicts are asked for again and again.
CREATE INDEX evaluation_evaluated ON evaluation (evaluated);
