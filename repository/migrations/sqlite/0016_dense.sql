-- What comes with each report touches fewer places: a report has one row with its number, messages are kept in the order of their
-- making, and changes have numbers for names. In one step: what somebody else writes meanwhile comes before it or after it.
DROP VIEW observation;

ALTER TABLE report RENAME TO report_before;
CREATE TABLE report (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hash TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    content TEXT NOT NULL,
    task TEXT,
    received BIGINT NOT NULL,
    released BIGINT,
    bytes BLOB NOT NULL
);
-- Numbers go on where they were.
INSERT INTO sqlite_sequence (name, seq) SELECT 'report', seq FROM sqlite_sequence WHERE name = 'report_number';
-- Reports of observations keep their numbers, by which observations refer to them; the others come after these.
INSERT INTO report (id, hash, kind, content, task, received, released, bytes)
    SELECT report_number.id, report_before.hash, kind, content, task, received, released, bytes FROM report_before
    JOIN report_number ON report_number.hash = report_before.hash;
INSERT INTO report (hash, kind, content, task, received, released, bytes)
    SELECT hash, kind, content, task, received, released, bytes FROM report_before
    WHERE NOT EXISTS (SELECT 1 FROM report_number WHERE report_number.hash = report_before.hash);
-- No number means another report than before.
UPDATE observed SET report = NULL WHERE report IS NOT NULL AND NOT EXISTS (SELECT 1 FROM report WHERE report.id = observed.report);
DROP TABLE report_before;
DROP TABLE report_number;
CREATE INDEX report_content ON report (content);
CREATE INDEX report_released ON report (released) WHERE released IS NOT NULL;
CREATE INDEX report_task ON report (task);

-- An id begins with when it was made (UUIDv7): what is new is beside what was new before it.
ALTER TABLE message RENAME TO message_before;
CREATE TABLE message (
    sender TEXT NOT NULL,
    id TEXT NOT NULL,
    received BIGINT NOT NULL,
    PRIMARY KEY (id, sender)
);
INSERT INTO message (sender, id, received) SELECT sender, id, received FROM message_before;
DROP TABLE message_before;
CREATE INDEX message_received ON message (received);

ALTER TABLE change RENAME TO change_before;
CREATE TABLE change (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    endpoint BIGINT NOT NULL,
    object BIGINT NOT NULL,
    origin BIGINT NOT NULL,
    collected BIGINT NOT NULL,
    old_observation BIGINT,
    new_observation BIGINT,
    stream TEXT
);
INSERT INTO sqlite_sequence (name, seq) SELECT 'change', seq FROM sqlite_sequence WHERE name = 'change_before';
-- Changes of before there were numbers may name what nothing else does.
INSERT INTO name (text)
    SELECT text FROM (SELECT endpoint AS text FROM change_before UNION SELECT object FROM change_before
    UNION SELECT origin FROM change_before) AS told WHERE NOT EXISTS (SELECT 1 FROM name WHERE name.text = told.text);
INSERT INTO change (id, endpoint, object, origin, collected, old_observation, new_observation, stream)
    SELECT change_before.id, endpoint.id, object.id, origin.id, collected, old_observation, new_observation, stream
    FROM change_before
    JOIN name AS endpoint ON endpoint.text = change_before.endpoint
    JOIN name AS object ON object.text = change_before.object
    JOIN name AS origin ON origin.text = change_before.origin;
DROP TABLE change_before;
CREATE INDEX change_endpoint ON change (endpoint, id);
CREATE INDEX change_collected ON change (collected);

-- The same with their names, to read.
CREATE VIEW observation AS
    SELECT observed.id AS id, endpoint.text AS endpoint, object.text AS object, origin.text AS origin, method.text AS method,
    finding.flag AS flag, finding.items AS items, finding.messages AS messages, report.hash AS report,
    observed.valid_from AS valid_from, observed.last_seen AS last_seen, observed.valid_to AS valid_to
    FROM observed
    JOIN name AS endpoint ON endpoint.id = observed.endpoint
    JOIN name AS object ON object.id = observed.object
    JOIN name AS origin ON origin.id = observed.origin
    JOIN name AS method ON method.id = observed.method
    JOIN finding ON finding.id = observed.finding
    LEFT JOIN report ON report.id = observed.report;
