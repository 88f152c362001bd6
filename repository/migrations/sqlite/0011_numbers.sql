-- Names by number: endpoints, objects, who observed, policies, rules. What is stored for each of hundreds of objects of each of
-- thousands of endpoints has numbers in it, and what says the same is there once.
CREATE TABLE name (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    text TEXT NOT NULL UNIQUE
);

-- What looking at an object gave, by the hash of it.
CREATE TABLE finding (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hash TEXT NOT NULL UNIQUE,
    flag TEXT NOT NULL,
    items TEXT NOT NULL,
    messages TEXT NOT NULL
);

-- The reports that observations came with, by number.
CREATE TABLE report_number (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hash TEXT NOT NULL UNIQUE
);

-- What asking one object of one endpoint gave, as intervals: from `valid_from` to `valid_to` it was so; `last_seen` is when it
-- was last looked at. The row without `valid_to` is the current one.
CREATE TABLE observed (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
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

-- What a rule came to, in words, by the hash of it.
CREATE TABLE decision (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hash TEXT NOT NULL UNIQUE,
    verdict TEXT NOT NULL,
    result TEXT NOT NULL
);

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
