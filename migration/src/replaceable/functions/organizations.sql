-- BEFORE DELETE on users, also when the identity is deleted: organizations stay. The oldest other owner, else the
-- oldest admin, becomes the owner. Other members do not; then the organization has no owner until an operator names
-- one. Users that are being deleted at the same time are skipped, and so are those whose identity is banned or deleted.
CREATE OR REPLACE FUNCTION public.hand_over_organizations() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    organization record;
    successor uuid;
BEGIN
    FOR organization IN SELECT o.id FROM public.organizations o WHERE o.owner_id = OLD.id ORDER BY o.id FOR NO KEY UPDATE
    LOOP
        SELECT m.user_id INTO successor
        FROM public.organization_members m JOIN public.users u ON u.id = m.user_id
        WHERE m.organization_id = organization.id AND m.user_id <> OLD.id AND m.role IN ('owner', 'admin')
          AND NOT EXISTS (SELECT FROM public.identity_states(ARRAY[m.user_id]) s WHERE s.state IN ('banned', 'deleted'))
        ORDER BY m.role = 'owner' DESC, m.created_at, m.user_id LIMIT 1
        FOR KEY SHARE OF u SKIP LOCKED;
        UPDATE public.organizations SET owner_id = successor WHERE id = organization.id;
        UPDATE public.organization_members SET role = 'owner'
        WHERE organization_id = organization.id AND user_id = successor AND role <> 'owner';
        INSERT INTO public.audit_logs (table_name, record_id, action, old_values, new_values, actor_id, actor_name, reason)
        VALUES ('organizations', organization.id::pg_catalog.text, 'hand_over', jsonb_build_object('owner_id', OLD.id),
            jsonb_build_object('owner_id', successor), public.request_actor(), session_user, 'the profile of the owner was deleted');
    END LOOP;
    RETURN OLD;
END
$$;
