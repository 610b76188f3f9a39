DROP TABLE public.chat_messages;
DROP TABLE public.chat_sessions;
DROP TABLE public.ai_usage_logs;
