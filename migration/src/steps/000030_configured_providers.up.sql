-- The names of the providers of models. A process adds those of its settings when it starts; none is removed, since records name
-- them. A trigger refuses a record of a call that names none of them: a foreign key would lock one row in every call.
CREATE TABLE public.ai_providers (
    id varchar(20) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT ai_providers_pkey PRIMARY KEY (id),
    CONSTRAINT check_ai_provider_id CHECK (id ~ '^[a-z][a-z0-9_-]*$')
);
INSERT INTO public.ai_providers (id) VALUES ('openai'), ('claude'), ('gemini');
-- @ transaction
-- The new one holds less: the names of the settings are known to the trigger alone.
-- squawk-ignore ban-drop-constraint
ALTER TABLE public.ai_usage_logs DROP CONSTRAINT check_provider,
    ADD CONSTRAINT check_provider CHECK (provider ~ '^[a-z][a-z0-9_-]*$') NOT VALID;
-- @ transaction
ALTER TABLE public.ai_usage_logs VALIDATE CONSTRAINT check_provider;
-- @ transaction
ALTER TABLE public.model_prices ADD CONSTRAINT fk_model_prices_provider
    FOREIGN KEY (provider) REFERENCES public.ai_providers (id) NOT VALID;
-- @ transaction
ALTER TABLE public.model_prices VALIDATE CONSTRAINT fk_model_prices_provider;
-- @ transaction
-- The foreign key says the same, and knows the names of the settings.
-- squawk-ignore ban-drop-constraint
ALTER TABLE public.model_prices DROP CONSTRAINT check_model_price_provider;
