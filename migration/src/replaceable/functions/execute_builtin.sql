GRANT EXECUTE ON FUNCTION public.identity_register(uuid, text, text), public.identity_credentials(text),
    public.identity_set_password(uuid, text), public.identity_delete(uuid) TO app_service;
