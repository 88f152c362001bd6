-- The responders of a workflow, each by itself: there may be ten thousand, and each changes on its own.
CREATE TABLE responder (
    workflow TEXT NOT NULL,
    position BIGINT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (workflow, position)
);
