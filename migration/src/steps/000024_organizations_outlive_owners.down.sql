DO $owners$
BEGIN
    IF EXISTS (SELECT FROM public.organizations WHERE owner_id IS NULL) THEN
        RAISE EXCEPTION 'there are organizations without an owner, which the schema before cannot hold: give them one first (UPDATE organizations SET owner_id = ..)';
    END IF;
END
$owners$;
ALTER TABLE public.organizations
    ALTER COLUMN owner_id SET NOT NULL,
    ADD CONSTRAINT fk_organizations_owner FOREIGN KEY (owner_id) REFERENCES public.users (id) ON DELETE CASCADE,
    DROP CONSTRAINT fk_organizations_owner_kept;
