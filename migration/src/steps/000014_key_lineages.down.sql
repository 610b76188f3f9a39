ALTER TABLE public.ai_answers DROP COLUMN rights;
ALTER TABLE public.idempotent_answers DROP COLUMN rights;
DROP INDEX public.idx_api_keys_lineage_id;
ALTER TABLE public.api_keys
    DROP CONSTRAINT check_api_key_makers,
    DROP CONSTRAINT fk_api_keys_lineage,
    DROP COLUMN makers,
    DROP COLUMN lineage_id;
