-- What is there is taken over: observations keep their numbers, which changes name.
INSERT INTO name (text)
    SELECT endpoint FROM observation UNION SELECT object FROM observation UNION SELECT origin FROM observation
    UNION SELECT method FROM observation UNION SELECT endpoint FROM verdict UNION SELECT policy FROM verdict
    UNION SELECT profile FROM verdict UNION SELECT rule FROM verdict UNION SELECT content FROM verdict
    UNION SELECT transaction_id FROM verdict WHERE transaction_id IS NOT NULL;

INSERT INTO finding (hash, flag, items, messages)
    SELECT content, MIN(flag), MIN(items), MIN(messages) FROM observation GROUP BY content ORDER BY MIN(id);

INSERT INTO report_number (hash) SELECT report FROM observation WHERE report IS NOT NULL GROUP BY report ORDER BY MIN(id);

INSERT INTO observed (id, endpoint, object, origin, method, finding, report, valid_from, last_seen, valid_to, received)
    SELECT observation.id, endpoint.id, object.id, origin.id, method.id, finding.id, report_number.id, valid_from, last_seen,
    valid_to, received FROM observation
    JOIN name AS endpoint ON endpoint.text = observation.endpoint
    JOIN name AS object ON object.text = observation.object
    JOIN name AS origin ON origin.text = observation.origin
    JOIN name AS method ON method.text = observation.method
    JOIN finding ON finding.hash = observation.content
    LEFT JOIN report_number ON report_number.hash = observation.report;
DROP TABLE observation;

-- SQL has no way to the hash of what an earlier version stored.
INSERT INTO decision (hash, verdict, result)
    SELECT 'earlier ' || row_number() OVER (), verdict, result FROM verdict GROUP BY verdict, result;

INSERT INTO decided (endpoint, policy, profile, rule, position, decision, content, since, decided, valid_from, valid_to, transaction_id)
    SELECT endpoint.id, policy.id, profile.id, rule.id, position, decision.id, content.id, since, decided, valid_from, valid_to,
    transaction_name.id FROM verdict
    JOIN name AS endpoint ON endpoint.text = verdict.endpoint
    JOIN name AS policy ON policy.text = verdict.policy
    JOIN name AS profile ON profile.text = verdict.profile
    JOIN name AS rule ON rule.text = verdict.rule
    JOIN name AS content ON content.text = verdict.content
    JOIN decision ON decision.result = verdict.result AND decision.verdict = verdict.verdict
    LEFT JOIN name AS transaction_name ON transaction_name.text = verdict.transaction_id;
DROP TABLE verdict;
