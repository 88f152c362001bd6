-- What is looked up by a hash has its place by chance: another page for each report. Messages are looked up by what they are as content
-- only after a chain has told of them.
DROP INDEX report_content;
CREATE TABLE told (
    content TEXT PRIMARY KEY,
    report BIGINT NOT NULL
);
