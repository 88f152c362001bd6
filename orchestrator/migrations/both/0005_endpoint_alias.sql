-- Endpoints that turned out to be others, by an operator's word.
CREATE TABLE endpoint_alias (endpoint TEXT PRIMARY KEY, alias_of TEXT NOT NULL);
