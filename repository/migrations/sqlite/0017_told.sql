-- What is looked up by a hash has its place by chance: another page for each report. Messages are looked up by what they are as content
-- only after a chain has told of them.
DROP INDEX report_content;
CREATE TABLE told (
    content TEXT PRIMARY KEY,
    report BIGINT NOT NULL
);

-- Which tasks reports answer is asked of very many at once, and seldom: all that there is of it is read, in the order in which it came.
DROP INDEX report_task;
CREATE INDEX report_answers ON report (id, task);
