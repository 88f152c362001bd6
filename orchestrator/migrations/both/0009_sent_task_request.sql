-- Whoever has not heard is asked again, as it was asked.
CREATE INDEX sent_task_request ON sent_task (request);
