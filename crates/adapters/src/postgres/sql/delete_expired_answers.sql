-- $1 the row limit. Locked rows are left for the next run.
DELETE FROM idempotent_answers WHERE (user_id, route, key_digest) IN (
    SELECT user_id, route, key_digest FROM idempotent_answers
    WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
