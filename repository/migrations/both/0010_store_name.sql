-- Which database this is: repositories that say the same name keep the same. A file has none, as nobody shares it.
CREATE TABLE store_name (
    id BIGINT PRIMARY KEY,
    name TEXT NOT NULL
);
