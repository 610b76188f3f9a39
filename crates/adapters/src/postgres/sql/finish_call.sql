-- $1 user, $2 route, $3 digest of the idempotency key, $4 the reservation, $5 status, $6 content type, $7 sealed body.
UPDATE ai_answers SET status = $5, content_type = $6, sealed_body = $7
WHERE user_id = $1 AND route = $2 AND key_digest = $3 AND reservation_id = $4 AND status IS NULL
