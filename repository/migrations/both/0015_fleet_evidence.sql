-- Verdicts on many endpoints come in one message: of which of them a report is evidence. Of messages about one endpoint, and where it
-- is evidence of several, nothing.
ALTER TABLE evidence ADD COLUMN endpoint TEXT;
