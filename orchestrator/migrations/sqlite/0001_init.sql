-- The roster, the workflows, the tokens and the policies that were imported here: one document a row.
CREATE TABLE component (id TEXT PRIMARY KEY, document TEXT NOT NULL);
CREATE TABLE workflow (id TEXT PRIMARY KEY, is_open BIGINT NOT NULL, begun BIGINT NOT NULL, document TEXT NOT NULL);
CREATE TABLE token (id TEXT PRIMARY KEY, document TEXT NOT NULL);
CREATE TABLE policy (name TEXT PRIMARY KEY, document TEXT NOT NULL);
