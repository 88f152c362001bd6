-- What is looked up by a hash has its place by chance: another page for each report. Messages are looked up by what they are as content
-- only after a chain has told of them, and the few of which one has are marked.
DROP INDEX report_content;
ALTER TABLE report ADD COLUMN told BIGINT;
CREATE INDEX report_told ON report (content) WHERE told IS NOT NULL;
