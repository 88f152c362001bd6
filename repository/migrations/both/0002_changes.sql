-- A change knows both of its sides and the report that brought it.
ALTER TABLE change ADD COLUMN old_observation BIGINT;
ALTER TABLE change ADD COLUMN new_observation BIGINT;
ALTER TABLE change ADD COLUMN stream TEXT;
CREATE INDEX change_endpoint ON change (endpoint, id);

-- The epochs of observations: how many of their reports came.
CREATE TABLE stream (
    origin TEXT NOT NULL,
    observation TEXT NOT NULL,
    epoch TEXT NOT NULL,
    begun BIGINT NOT NULL,
    highest BIGINT NOT NULL,
    received BIGINT NOT NULL,
    PRIMARY KEY (origin, observation, epoch)
);
