-- What components were asked, as it was signed: an answer refers to it by the hash of its envelope. Without a responder it
-- was broadcast.
CREATE TABLE sent_task (
    hash TEXT PRIMARY KEY,
    request TEXT NOT NULL,
    responder TEXT,
    sealed TEXT NOT NULL,
    sent BIGINT NOT NULL
);
