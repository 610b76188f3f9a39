-- $1 a locked API key, $2 the time of revocation. All keys made by it or by earlier keys of its lineage are revoked
-- too, with those made by them; a key lists all keys above it. Later keys of its lineage stay active.
UPDATE api_keys AS k SET is_active = false, revoked_at = coalesce(k.revoked_at, $2)
FROM (
    SELECT o.id, o.user_id, (
        SELECT array_agg(b.id) FROM api_keys AS b
        WHERE b.user_id = o.user_id AND coalesce(b.lineage_id, b.id) = coalesce(o.lineage_id, o.id) AND b.created_at <= o.created_at
    ) AS makers
    FROM api_keys AS o WHERE o.id = $1
) AS ended
WHERE k.user_id = ended.user_id AND k.is_active AND (k.id = ended.id OR k.makers && ended.makers)
