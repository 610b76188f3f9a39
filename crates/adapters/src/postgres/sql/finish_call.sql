-- $1 user, $2 route, $3 digest of the key, $4 the call's hold, $5 status, $6 content type, $7 sealed body, $8 for how many
-- seconds it is kept from now; NULL leaves that as it was.
UPDATE ai_answers SET status = $5, content_type = $6, sealed_body = $7,
    expires_at = coalesce(now() + make_interval(secs => $8), expires_at)
WHERE user_id = $1 AND route = $2 AND key_digest = $3 AND reservation_id = $4 AND status IS NULL
