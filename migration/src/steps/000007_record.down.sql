DROP TABLE public.webhook_deliveries;
DROP TABLE public.webhook_endpoints;
DROP TABLE public.usage_alerts;
DROP TABLE public.outbox;
DROP TABLE public.audit_logs;
