-- GET /api/users/me/features/ai_requests by Postgres alone: every fact of the decision for a random user, in one
-- statement. OFFSET 0 makes Postgres compute the id once.
\set n random(1, :users)
SELECT e.* FROM (SELECT md5(:n::text)::uuid AS id OFFSET 0) AS u
CROSS JOIN LATERAL feature_entitlement(u.id, 'ai_requests') AS e;
