-- A file as the first schema wrote it: never to be changed, only loaded by the test of migrations.
PRAGMA application_id = 1869767528;
CREATE TABLE records(
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    subject TEXT NOT NULL,
    data BLOB NOT NULL
);
CREATE TABLE heads(subject TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE) WITHOUT ROWID;
CREATE TABLE agent_state(id TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE callbacks(
    id TEXT PRIMARY KEY, agent TEXT NOT NULL, at INTEGER NOT NULL, answer TEXT NOT NULL
);
CREATE INDEX callbacks_by_age ON callbacks(at);
CREATE TABLE journal(
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL, agent TEXT, kind TEXT NOT NULL, json TEXT NOT NULL
);
CREATE INDEX journal_by_agent ON journal(agent, seq);

INSERT INTO records(seq, subject, data) VALUES
    (1, 'task/w1-a', CAST('{"id":"w1-a","description":"the first","status":"available","source":{"kind":"task_list","worker":1},"created_at":1000,"updated_at":1000}' AS BLOB)),
    (2, 'tasklist/1/checkout', CAST('{"seen":{},"operation":"x"}' AS BLOB)),
    (3, 'task/w1-a', CAST('{"id":"w1-a","description":"the first","status":"claimed","owner":"worker-1","source":{"kind":"task_list","worker":1},"claim":{"agent":"worker-1","incarnation":1,"fence":1,"claimed_at":2000,"lease_until":9000},"attempts":1,"created_at":1000,"updated_at":2000}' AS BLOB)),
    (4, 'task/w1-b', CAST('{"id":"w1-b","description":"the second","status":"available","priority":1,"source":{"kind":"direct"},"created_at":1000,"updated_at":1000}' AS BLOB)),
    (7, 'task/w1-a', CAST('{"id":"w1-a","description":"the first","status":"done","owner":"worker-1","source":{"kind":"task_list","worker":1},"claim":{"agent":"worker-1","incarnation":1,"fence":1,"claimed_at":2000,"lease_until":9000},"attempts":1,"result":"done","created_at":1000,"updated_at":3000}' AS BLOB));
INSERT INTO heads(subject, seq) VALUES ('tasklist/1/checkout', 2), ('task/w1-b', 4), ('task/w1-a', 7);
INSERT INTO agent_state(id, json) VALUES ('worker-1', '{"n":1}');
INSERT INTO meta(key, value) VALUES ('writer', '{"version":"0.1.0","format":1}');
INSERT INTO callbacks(id, agent, at, answer) VALUES ('c1', 'worker-1', 2500, '"go on"');
INSERT INTO journal(seq, at, agent, kind, json) VALUES (5, 2500, 'worker-1', 'hook', '{}');
PRAGMA user_version = 1;
