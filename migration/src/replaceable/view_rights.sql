REVOKE ALL ON public.user_plan_summary, public.user_feature_access, public.ai_usage_monthly, public.integrity_findings
    FROM PUBLIC, anon, authenticated, service_role;
GRANT SELECT ON public.user_plan_summary, public.user_feature_access, public.ai_usage_monthly
    TO authenticated, app_service, service_role, readonly_user;
GRANT SELECT ON public.integrity_findings TO app_service;
