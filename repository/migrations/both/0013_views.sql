CREATE UNIQUE INDEX observed_current ON observed (endpoint, object, origin) WHERE valid_to IS NULL;
CREATE INDEX observed_history ON observed (endpoint, object, valid_from);
CREATE INDEX observed_past ON observed (valid_to) WHERE valid_to IS NOT NULL;
CREATE INDEX observed_report ON observed (report);
CREATE UNIQUE INDEX decided_current ON decided (endpoint, policy, profile, rule) WHERE valid_to IS NULL;
CREATE INDEX decided_past ON decided (valid_to) WHERE valid_to IS NOT NULL;
CREATE INDEX decided_in ON decided (transaction_id, endpoint);

-- The same with their names, to read.
CREATE VIEW observation AS
    SELECT observed.id AS id, endpoint.text AS endpoint, object.text AS object, origin.text AS origin, method.text AS method,
    finding.flag AS flag, finding.items AS items, finding.messages AS messages, report_number.hash AS report,
    observed.valid_from AS valid_from, observed.last_seen AS last_seen, observed.valid_to AS valid_to
    FROM observed
    JOIN name AS endpoint ON endpoint.id = observed.endpoint
    JOIN name AS object ON object.id = observed.object
    JOIN name AS origin ON origin.id = observed.origin
    JOIN name AS method ON method.id = observed.method
    JOIN finding ON finding.id = observed.finding
    LEFT JOIN report_number ON report_number.id = observed.report;
CREATE VIEW verdict AS
    SELECT endpoint.text AS endpoint, policy.text AS policy, profile.text AS profile, rule.text AS rule,
    decided.position AS position, decision.verdict AS verdict, decision.result AS result, content.text AS content,
    decided.since AS since, decided.decided AS decided, decided.valid_from AS valid_from, decided.valid_to AS valid_to,
    transaction_name.text AS transaction_id
    FROM decided
    JOIN name AS endpoint ON endpoint.id = decided.endpoint
    JOIN name AS policy ON policy.id = decided.policy
    JOIN name AS profile ON profile.id = decided.profile
    JOIN name AS rule ON rule.id = decided.rule
    JOIN name AS content ON content.id = decided.content
    JOIN decision ON decision.id = decided.decision
    LEFT JOIN name AS transaction_name ON transaction_name.id = decided.transaction_id;
