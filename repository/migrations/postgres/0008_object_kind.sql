-- Of which kind an object is, as what it found says.
CREATE TABLE object_kind (
    object TEXT PRIMARY KEY,
    kind TEXT NOT NULL
);
CREATE INDEX object_kind_kind ON object_kind (kind);
INSERT INTO object_kind (object, kind)
    SELECT observation.object, MIN(item.content::json ->> 'kind') FROM observation
    JOIN item ON item.hash = observation.items::json ->> 0 GROUP BY observation.object;
