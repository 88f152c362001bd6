-- What holds now, and what held. A row says what was decided of one rule from `valid_from` to `valid_to`; the row without
-- `valid_to` is the current one. `since` is when the verdict became this one: what was found may have changed meanwhile. `decided` is
-- when it was decided last by an evaluation that decided a part; one that decided everything is newer if it came later.
CREATE TABLE verdict (
    endpoint TEXT NOT NULL,
    policy TEXT NOT NULL,
    profile TEXT NOT NULL,
    rule TEXT NOT NULL,
    position BIGINT NOT NULL,
    verdict TEXT NOT NULL,
    result TEXT NOT NULL,
    content TEXT NOT NULL,
    since BIGINT NOT NULL,
    decided BIGINT NOT NULL,
    valid_from BIGINT NOT NULL,
    valid_to BIGINT,
    PRIMARY KEY (endpoint, policy, profile, rule, valid_from)
);
CREATE UNIQUE INDEX verdict_current ON verdict (endpoint, policy, profile, rule) WHERE valid_to IS NULL;

-- Whether an evaluation says nothing of what holds now: it is as of a time in the past, or came after a newer one. Its
-- verdicts are in `result`.
ALTER TABLE evaluation ADD COLUMN is_past BIGINT NOT NULL DEFAULT 0;
ALTER TABLE evaluation ADD COLUMN is_partial BIGINT NOT NULL DEFAULT 0;

-- The messages that an evaluation came in.
CREATE TABLE evaluation_part (
    transaction_id TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    part BIGINT NOT NULL,
    report TEXT NOT NULL,
    PRIMARY KEY (transaction_id, endpoint, part)
);
CREATE INDEX evaluation_part_report ON evaluation_part (report);
INSERT INTO evaluation_part (transaction_id, endpoint, part, report)
    SELECT transaction_id, endpoint, MIN(position), report FROM result WHERE report IS NOT NULL
    GROUP BY transaction_id, endpoint, report;
