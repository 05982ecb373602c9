# SPDX-License-Identifier: GPL-2.0
# A table of 60,000 rows, an index, sorting, text functions, a large blob, in memory and in a file.
for file in :memory: data.db; do
	sqlite3 "$file" <<-'SQL'
		CREATE TABLE numbers (id INTEGER PRIMARY KEY, value INTEGER, name TEXT);
		WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < 60000)
			INSERT INTO numbers SELECT n, n * 7919 % 60013, printf('name %08d', n * 31 % 60000) FROM counter;
		CREATE INDEX by_name ON numbers (name);
		SELECT count(*), sum(value), min(name), max(name) FROM numbers;
		SELECT value % 100 AS bucket, count(*) FROM numbers GROUP BY bucket ORDER BY 2 DESC, 1 LIMIT 5;
		SELECT length(group_concat(name, ',')) FROM (SELECT name FROM numbers ORDER BY value DESC);
		SELECT length(zeroblob(3000000)), length(replace(hex(zeroblob(500000)), '00', 'abc'));
		DELETE FROM numbers WHERE id % 3 = 0;
		VACUUM;
		SELECT count(*), sum(value) FROM numbers;
		PRAGMA integrity_check;
	SQL
done
