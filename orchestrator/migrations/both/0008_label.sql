-- What operators call endpoints.
CREATE TABLE label (name TEXT PRIMARY KEY, document TEXT NOT NULL);
