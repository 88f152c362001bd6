-- Which message asked for a report: as long as the report is there, so must that be.
ALTER TABLE report ADD COLUMN task TEXT;
CREATE INDEX report_task ON report (task);

-- As of when an evaluation was made, where that was not when it was made: what was so then is what it rests on.
ALTER TABLE evaluation ADD COLUMN as_of BIGINT;

-- What is past is looked for by its age.
CREATE INDEX observation_past ON observation (valid_to) WHERE valid_to IS NOT NULL;
CREATE INDEX verdict_past ON verdict (valid_to) WHERE valid_to IS NOT NULL;
CREATE INDEX change_collected ON change (collected);
CREATE INDEX message_received ON message (received);

-- In which evaluation a verdict was decided: that stays as long as the verdict.
ALTER TABLE verdict ADD COLUMN transaction_id TEXT;
CREATE INDEX verdict_decided_in ON verdict (transaction_id, endpoint);
