-- Items by the hash of their content: identical content is stored once.
CREATE TABLE item (
    hash TEXT PRIMARY KEY,
    content TEXT NOT NULL
);

-- What asking one object of one endpoint gave, as intervals: from `valid_from` to `valid_to` it was
-- so; `last_seen` is when it was last looked at. The row without `valid_to` is the current one.
CREATE TABLE observation (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint TEXT NOT NULL,
    object TEXT NOT NULL,
    origin TEXT NOT NULL,
    method TEXT NOT NULL,
    flag TEXT NOT NULL,
    items TEXT NOT NULL,
    messages TEXT NOT NULL,
    content TEXT NOT NULL,
    valid_from BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    valid_to BIGINT,
    received BIGINT NOT NULL
);
CREATE UNIQUE INDEX observation_current ON observation (endpoint, object, origin) WHERE valid_to IS NULL;
CREATE INDEX observation_history ON observation (endpoint, object, valid_from);

-- Every change of a current observation, written in the transaction that changes it.
CREATE TABLE change (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint TEXT NOT NULL,
    object TEXT NOT NULL,
    origin TEXT NOT NULL,
    old_content TEXT,
    new_content TEXT NOT NULL,
    collected BIGINT NOT NULL
);

-- What an endpoint last said of itself.
CREATE TABLE endpoint (
    endpoint TEXT PRIMARY KEY,
    facts TEXT NOT NULL,
    collected BIGINT NOT NULL
);

-- Messages that had their effect: the same one again has none.
CREATE TABLE message (
    sender TEXT NOT NULL,
    id TEXT NOT NULL,
    received BIGINT NOT NULL,
    PRIMARY KEY (sender, id)
);

CREATE TABLE content (
    hash TEXT PRIMARY KEY,
    bytes BYTEA NOT NULL
);

CREATE TABLE policy (
    name TEXT NOT NULL,
    content TEXT NOT NULL,
    description TEXT NOT NULL,
    imported BIGINT NOT NULL,
    PRIMARY KEY (name, content)
);

CREATE TABLE evaluation (
    transaction_id TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    policy TEXT NOT NULL,
    profile TEXT NOT NULL,
    evaluated BIGINT NOT NULL,
    summary TEXT NOT NULL,
    PRIMARY KEY (transaction_id, endpoint)
);
CREATE INDEX evaluation_latest ON evaluation (endpoint, policy, profile, evaluated);

CREATE TABLE result (
    transaction_id TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    rule TEXT NOT NULL,
    position BIGINT NOT NULL,
    verdict TEXT NOT NULL,
    result TEXT NOT NULL,
    PRIMARY KEY (transaction_id, endpoint, rule)
);
