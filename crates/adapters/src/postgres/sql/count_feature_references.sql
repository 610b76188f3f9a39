-- $1 the feature. Counters are counted up to a thousand: more would only make the same answer later.
SELECT (SELECT count(*) FROM plan_features WHERE feature_id = $1)
     + (SELECT count(*) FROM feature_overrides WHERE feature_id = $1)
     + (SELECT count(*) FROM (SELECT FROM usage_counters WHERE feature_id = $1 LIMIT 1000) AS counters)
