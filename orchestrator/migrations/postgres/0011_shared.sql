-- What several orchestrators on one database share beside the rest: who is active, who there is, the id that they have in
-- common, content that cannot be made again, and the CA, its keys encrypted. A file is used by one, which leaves them empty.
CREATE TABLE lease (
    id BIGINT PRIMARY KEY,
    holder TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    since BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
INSERT INTO lease (id, holder, epoch, since, expires) VALUES (1, '', 0, 0, 0);
CREATE TABLE instance (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    version TEXT NOT NULL,
    started BIGINT NOT NULL,
    seen BIGINT NOT NULL
);
CREATE TABLE identity (id BIGINT PRIMARY KEY, component TEXT NOT NULL);
CREATE TABLE content (hash TEXT PRIMARY KEY, bytes BYTEA NOT NULL);
CREATE TABLE ca_file (path TEXT PRIMARY KEY, bytes BYTEA NOT NULL);
