-- Every version of a policy; the one in force is in `policy`. Whose signatures are believed, and where policies are looked for.
CREATE TABLE policy_version (
    name TEXT NOT NULL,
    number BIGINT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (name, number)
);
INSERT INTO policy_version (name, number, document) SELECT name, 1, document FROM policy;
CREATE TABLE policy_signer (name TEXT PRIMARY KEY, document TEXT NOT NULL);
CREATE TABLE policy_feed (name TEXT PRIMARY KEY, document TEXT NOT NULL);
