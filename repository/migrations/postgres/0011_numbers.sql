-- Names by number: endpoints, objects, who observed, policies, rules. What is stored for each of hundreds of objects of each of
-- thousands of endpoints has numbers in it, and what says the same is there once.
CREATE TABLE name (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
);
INSERT INTO name (text)
    SELECT endpoint FROM observation UNION SELECT object FROM observation UNION SELECT origin FROM observation
    UNION SELECT method FROM observation UNION SELECT endpoint FROM verdict UNION SELECT policy FROM verdict
    UNION SELECT profile FROM verdict UNION SELECT rule FROM verdict UNION SELECT content FROM verdict
    UNION SELECT transaction_id FROM verdict WHERE transaction_id IS NOT NULL;

-- What looking at an object gave, by the hash of it.
CREATE TABLE finding (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    flag TEXT NOT NULL,
    items TEXT NOT NULL,
    messages TEXT NOT NULL
);
INSERT INTO finding (hash, flag, items, messages)
    SELECT content, MIN(flag), MIN(items), MIN(messages) FROM observation GROUP BY content ORDER BY MIN(id);

-- The reports that observations came with, by number.
CREATE TABLE report_number (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE
);
INSERT INTO report_number (hash) SELECT report FROM observation WHERE report IS NOT NULL GROUP BY report ORDER BY MIN(id);

-- What asking one object of one endpoint gave, as intervals: from `valid_from` to `valid_to` it was so; `last_seen` is when it
-- was last looked at. The row without `valid_to` is the current one.
CREATE TABLE observed (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint BIGINT NOT NULL,
    object BIGINT NOT NULL,
    origin BIGINT NOT NULL,
    method BIGINT NOT NULL,
    finding BIGINT NOT NULL,
    report BIGINT,
    valid_from BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    valid_to BIGINT,
    received BIGINT NOT NULL
);
INSERT INTO observed (id, endpoint, object, origin, method, finding, report, valid_from, last_seen, valid_to, received) OVERRIDING SYSTEM VALUE
    SELECT observation.id, endpoint.id, object.id, origin.id, method.id, finding.id, report_number.id, valid_from, last_seen,
    valid_to, received FROM observation
    JOIN name AS endpoint ON endpoint.text = observation.endpoint
    JOIN name AS object ON object.text = observation.object
    JOIN name AS origin ON origin.text = observation.origin
    JOIN name AS method ON method.text = observation.method
    JOIN finding ON finding.hash = observation.content
    LEFT JOIN report_number ON report_number.hash = observation.report;
DROP TABLE observation;
SELECT setval(pg_get_serial_sequence('observed', 'id'), (SELECT COALESCE(MAX(id), 0) + 1 FROM observed), false);

-- What a rule came to, in words, by the hash of it. That of rows of earlier versions is not known here.
CREATE TABLE decision (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    verdict TEXT NOT NULL,
    result TEXT NOT NULL
);
INSERT INTO decision (hash, verdict, result)
    SELECT 'earlier ' || row_number() OVER (), verdict, result FROM verdict GROUP BY verdict, result;

-- Which verdicts held from when to when; `decided` is when it was last decided so.
CREATE TABLE decided (
    endpoint BIGINT NOT NULL,
    policy BIGINT NOT NULL,
    profile BIGINT NOT NULL,
    rule BIGINT NOT NULL,
    position BIGINT NOT NULL,
    decision BIGINT NOT NULL,
    content BIGINT NOT NULL,
    since BIGINT NOT NULL,
    decided BIGINT NOT NULL,
    valid_from BIGINT NOT NULL,
    valid_to BIGINT,
    transaction_id BIGINT,
    PRIMARY KEY (endpoint, policy, profile, rule, valid_from)
);
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
