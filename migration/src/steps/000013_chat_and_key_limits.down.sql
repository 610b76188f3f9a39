ALTER TABLE public.usage_reservations
    DROP CONSTRAINT check_reservation_beyond,
    DROP COLUMN beyond;

ALTER TABLE public.ai_usage_logs
    DROP CONSTRAINT check_ai_usage_unpaid,
    DROP COLUMN unpaid_tokens;

DROP TABLE public.api_key_counters;

ALTER TABLE public.api_keys
    DROP CONSTRAINT check_api_key_limits,
    DROP COLUMN monthly_cost_nano_usd,
    DROP COLUMN tokens_per_minute,
    DROP COLUMN requests_per_minute;

DROP INDEX public.idx_chat_sessions_user_activity;
ALTER TABLE public.chat_sessions
    DROP CONSTRAINT check_chat_session_system,
    DROP CONSTRAINT check_chat_session_cost,
    DROP COLUMN system,
    DROP COLUMN cost_nano_usd,
    DROP COLUMN updated_at;

DROP INDEX public.idx_chat_messages_session_order;
ALTER TABLE public.chat_messages
    DROP CONSTRAINT check_chat_message_cost,
    DROP COLUMN seq,
    DROP COLUMN usage_log_id,
    DROP COLUMN model,
    DROP COLUMN cost_nano_usd;
CREATE INDEX idx_chat_messages_session_date ON public.chat_messages (session_id, created_at);
