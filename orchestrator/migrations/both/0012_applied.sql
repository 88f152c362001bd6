-- What was stored last: where an answer to a commit was lost, it is known whether it was one.
CREATE TABLE applied (id BIGINT PRIMARY KEY, batch TEXT NOT NULL);
