-- $1 user, $2 route, $3 digest of the request. Answered calls come first, then running ones, then lost ones.
UPDATE ai_answers SET content_digest = NULL
WHERE (user_id, route, key_digest) = (
    SELECT user_id, route, key_digest FROM ai_answers
    WHERE user_id = $1 AND content_digest = $3 AND route = $2 AND expires_at > now()
    ORDER BY sealed_body IS NULL, status IS NOT NULL, created_at LIMIT 1
    FOR UPDATE SKIP LOCKED)
RETURNING reservation_id
