#!/bin/sh
# Feeds an SQLite shell with an in-memory database: load, drop most of it, wait, load again, query.
#
# Paced by the feeder, so that the shell is idle in between. With auto_vacuum, pages that a DELETE empties are given
# back to malloc at the commit, as a server does that keeps per-session databases in memory.

load() { # from, to, step, pause
  first=$1
  while [ "$first" -lt "$2" ]; do
    cat <<SQL
BEGIN;
WITH RECURSIVE n(i) AS (SELECT $first UNION ALL SELECT i + 1 FROM n WHERE i < $first + $3 - 1)
INSERT OR REPLACE INTO document
  SELECT i, i % 997, 'document ' || i, randomblob(2000 + abs(random()) % 22000) FROM n;
WITH RECURSIVE n(i) AS (SELECT $first UNION ALL SELECT i + 1 FROM n WHERE i < $first + $3 - 1)
INSERT OR REPLACE INTO event SELECT i, i, i * 17, 'opened by ' || (i % 31) FROM n;
COMMIT;
SQL
    first=$((first + $3))
    sleep "$4"
  done
}

cat <<'SQL'
PRAGMA page_size = 4096;
PRAGMA auto_vacuum = FULL;
CREATE TABLE document (id INTEGER PRIMARY KEY, owner INTEGER, title TEXT, body BLOB);
CREATE INDEX by_owner ON document (owner, title);
CREATE TABLE event (id INTEGER PRIMARY KEY, document INTEGER, at INTEGER, note TEXT);
SQL
echo "load" >&2
load 0 12000 120 0.12
sleep 4
echo "drop three quarters" >&2
part=0
while [ $part -lt 30 ]; do
  echo "DELETE FROM document WHERE id % 40 = $part;"
  part=$((part + 1))
  sleep 0.1
done
echo "wait" >&2
sleep 23
echo "load again" >&2
load 0 12000 120 0.12
echo "SELECT owner, count(*), sum(length(body)) FROM document GROUP BY owner ORDER BY 3 DESC LIMIT 3;"
sleep 4
part=0
while [ $part -lt 16 ]; do
  echo "DELETE FROM document WHERE id % 40 = $part;"
  part=$((part + 1))
  sleep 0.1
done
echo "SELECT count(*) FROM document;"
sleep 4
