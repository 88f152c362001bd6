-- Schedules and observations, by the request that began them, and at whom they are in force.
CREATE TABLE standing_task (
    request TEXT NOT NULL,
    collector TEXT NOT NULL,
    operation TEXT NOT NULL,
    identifier TEXT NOT NULL,
    plan TEXT NOT NULL,
    document TEXT NOT NULL,
    ended BIGINT,
    PRIMARY KEY (operation, identifier, plan, collector)
);
CREATE INDEX standing_task_request ON standing_task (request, collector);
