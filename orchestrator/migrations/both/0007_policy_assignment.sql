-- Policies that are evaluated again and again, or when something changes.
CREATE TABLE policy_assignment (name TEXT PRIMARY KEY, document TEXT NOT NULL);
