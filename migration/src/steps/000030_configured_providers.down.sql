DO $providers$
BEGIN
    IF EXISTS (SELECT FROM public.ai_usage_logs WHERE provider NOT IN ('openai', 'claude', 'gemini'))
        OR EXISTS (SELECT FROM public.model_prices WHERE provider NOT IN ('openai', 'claude', 'gemini')) THEN
        RAISE EXCEPTION 'there are calls or prices of providers that the settings added, which the schema before cannot hold';
    END IF;
END
$providers$;
DROP TRIGGER IF EXISTS check_ai_usage_logs_provider ON public.ai_usage_logs;
ALTER TABLE public.ai_usage_logs DROP CONSTRAINT check_provider,
    ADD CONSTRAINT check_provider CHECK (provider IN ('openai', 'claude', 'gemini'));
ALTER TABLE public.model_prices DROP CONSTRAINT fk_model_prices_provider,
    ADD CONSTRAINT check_model_price_provider CHECK (provider IN ('openai', 'claude', 'gemini'));
DROP TABLE public.ai_providers;
