INSERT INTO model_prices
    (id, provider, model, kind, tier, geo, threshold_tokens, usd_per_million, version, source, valid_from, valid_to)
SELECT p.id, p.provider, p.model, p.kind, p.tier, p.geo, p.threshold_tokens, p.usd_per_million, p.version, p.source,
    p.valid_from, nullif(p.valid_to, 'epoch')
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::numeric[],
        $9::text[], $10::text[], $11::timestamptz[], $12::timestamptz[])
    AS p (id, provider, model, kind, tier, geo, threshold_tokens, usd_per_million, version, source, valid_from, valid_to)
