-- Lineages of API keys. lineage_id is the first key of the rotations that led to a key; NULL for the first itself. makers are the
-- key that made it, the one that made that key, and so on; of keys made before nobody knows. Limits are those of the lineage.
-- Adding the columns and the constraints touches no row; 000015 fills and proves them.
ALTER TABLE public.api_keys
    ADD COLUMN lineage_id uuid,
    ADD COLUMN makers uuid[] NOT NULL DEFAULT '{}',
    ADD CONSTRAINT fk_api_keys_lineage FOREIGN KEY (lineage_id) REFERENCES public.api_keys (id) ON DELETE CASCADE NOT VALID,
    ADD CONSTRAINT check_api_key_makers CHECK (cardinality(makers) <= 4) NOT VALID;
-- @ concurrently
CREATE INDEX CONCURRENTLY idx_api_keys_lineage_id ON public.api_keys (lineage_id);
-- @ transaction
-- What whoever got a stored answer first was allowed to do: it is given again only to those who may do as much. NULL for answers
-- of before.
ALTER TABLE public.idempotent_answers ADD COLUMN rights jsonb;
-- @ transaction
ALTER TABLE public.ai_answers ADD COLUMN rights jsonb;
