-- Prices of models as rows: a new tier or kind is a row and not a column, and an old row prices an old call again.

CREATE TABLE public.model_prices (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    provider varchar(20) NOT NULL,
    model text NOT NULL,
    kind varchar(30) NOT NULL,
    tier varchar(20) NOT NULL DEFAULT 'standard',
    geo varchar(20) NOT NULL DEFAULT '',
    threshold_tokens bigint NOT NULL DEFAULT 0,
    usd_per_million decimal(18,6) NOT NULL,
    version varchar(100) NOT NULL,
    source text,
    valid_from timestamptz NOT NULL DEFAULT '1970-01-01 00:00:00+00',
    valid_to timestamptz,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT model_prices_pkey PRIMARY KEY (id),
    CONSTRAINT check_model_price_provider CHECK (provider IN ('openai', 'claude', 'gemini')),
    CONSTRAINT check_model_price_amount CHECK (usd_per_million >= 0),
    CONSTRAINT check_model_price_threshold CHECK (threshold_tokens >= 0),
    CONSTRAINT check_model_price_validity CHECK (valid_to > valid_from),
    -- One price at a time. The key is compared as a range of its 64-bit hash, because equality of text inside
    -- a GiST exclusion would need the extension btree_gist, which is not ours to install everywhere.
    CONSTRAINT model_prices_no_overlap EXCLUDE USING gist (
        int8range(
            hashtextextended(provider || '|' || model || '|' || kind || '|' || tier || '|' || geo || '|' || threshold_tokens::text, 0),
            hashtextextended(provider || '|' || model || '|' || kind || '|' || tier || '|' || geo || '|' || threshold_tokens::text, 0),
            '[]'
        ) WITH =,
        tstzrange(valid_from, valid_to) WITH &&
    )
);
CREATE INDEX idx_model_prices_model ON public.model_prices (provider, model, valid_from);
