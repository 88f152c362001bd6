-- The sealed messages themselves, compressed: whoever doubts a verdict checks the signatures on what it rests on.
-- `released` is when nothing current referred to it any more.
CREATE TABLE report (
    hash TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    content TEXT NOT NULL,
    bytes BLOB NOT NULL,
    received BIGINT NOT NULL,
    released BIGINT
);
CREATE INDEX report_content ON report (content);
CREATE INDEX report_released ON report (released) WHERE released IS NOT NULL;

-- Which report an observation came with, or was last confirmed by; and a verdict.
ALTER TABLE observation ADD COLUMN report TEXT;
CREATE INDEX observation_report ON observation (report);
ALTER TABLE result ADD COLUMN report TEXT;

-- Which reports of observations the verdicts of one message rest on.
CREATE TABLE evidence (
    verdicts TEXT NOT NULL,
    report TEXT NOT NULL,
    PRIMARY KEY (verdicts, report)
);
CREATE INDEX evidence_report ON evidence (report);
