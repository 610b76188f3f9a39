-- $1 API keys, $2 when each was used; a key may occur more than once. A key locked by another transaction is skipped,
-- since the others would wait for it: its next use is written.
WITH used AS (
    SELECT id, max(at) AS at FROM unnest($1::uuid[], $2::timestamptz[]) AS u (id, at) GROUP BY id
), held AS (
    SELECT k.id FROM api_keys AS k JOIN used ON used.id = k.id ORDER BY k.id FOR NO KEY UPDATE OF k SKIP LOCKED
)
UPDATE api_keys AS k SET last_used_at = used.at
FROM held JOIN used ON used.id = held.id
WHERE k.id = held.id AND (k.last_used_at IS NULL OR k.last_used_at < used.at)
