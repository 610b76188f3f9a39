-- $1 the feature. At most a thousand counters are counted: more would only take longer for the same answer.
SELECT (SELECT count(*) FROM plan_features WHERE feature_id = $1)
     + (SELECT count(*) FROM feature_overrides WHERE feature_id = $1)
     + (SELECT count(*) FROM (SELECT FROM usage_counters WHERE feature_id = $1 LIMIT 1000) AS counters)
