DELETE FROM public.api_key_counters n WHERE NOT EXISTS (SELECT FROM public.api_keys k WHERE k.id = n.api_key_id);
DELETE FROM public.ai_usage_logs g WHERE NOT EXISTS (SELECT FROM public.users u WHERE u.id = g.user_id);
ALTER TABLE public.api_key_counters
    ADD CONSTRAINT fk_api_key_counters_key FOREIGN KEY (api_key_id) REFERENCES public.api_keys (id) ON DELETE CASCADE;
ALTER TABLE public.ai_usage_logs
    ADD CONSTRAINT fk_ai_usage_logs_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE;
