-- SQLite goes on numbering where the highest number was.
SELECT 1;
