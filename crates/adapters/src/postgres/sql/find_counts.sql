-- $1 users, $2 features, $3 periods and $4 their starts, as parallel arrays. One row for each with a known user.
SELECT asked.place, n.used, n.reserved, n.overage, u.token_balance, u.token_reserved, now() AS as_of
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[])
    WITH ORDINALITY AS asked (user_id, feature_id, period, period_start, place)
JOIN users AS u ON u.id = asked.user_id
CROSS JOIN LATERAL usage_tally(asked.user_id, asked.feature_id, asked.period, asked.period_start, now()) AS n
