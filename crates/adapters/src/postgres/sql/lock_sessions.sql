-- $1 conversations, in locking order. One row each. No later statement of the batch waits for them: their sums and the
-- messages that refer to them are written under these locks.
SELECT s.id IS NOT NULL AS is_locked,
    CASE WHEN s.id IS NULL THEN EXISTS (SELECT FROM chat_sessions AS c WHERE c.id = a.id OFFSET 0) ELSE false END AS is_busy
FROM unnest($1::uuid[]) WITH ORDINALITY AS a (id, place)
LEFT JOIN LATERAL (
    SELECT c.id FROM chat_sessions AS c WHERE c.id = a.id FOR NO KEY UPDATE SKIP LOCKED
) AS s ON true
ORDER BY a.place
