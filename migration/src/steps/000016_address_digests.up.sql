-- Which addresses had a profile, and whose it was last. A row outlives the profile and the identity: an address that comes
-- back under a new id gets no second starting balance, and the use of its open periods is carried to the new id.
-- digest is the SHA-256 of the e-mail in lower case and NFC, or of 'tel:' and the telephone number.
CREATE TABLE public.address_digests (
    digest bytea NOT NULL,
    user_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT address_digests_pkey PRIMARY KEY (digest)
);

-- Profiles that exist. Rows of users are only read, so nobody waits for this.
INSERT INTO public.address_digests (digest, user_id)
SELECT DISTINCT ON (d.digest) d.digest, u.id
FROM public.users u
JOIN auth.users a ON a.id = u.id
CROSS JOIN LATERAL (VALUES
    (nullif(lower(CASE WHEN current_setting('server_encoding') = 'UTF8'
        THEN normalize(btrim(a.email::text), NFC) ELSE btrim(a.email::text) END), '')),
    ('tel:' || nullif(to_jsonb(a) ->> 'phone', ''))
) w (address)
CROSS JOIN LATERAL (SELECT sha256(convert_to(w.address, 'UTF8')) AS digest) d
WHERE w.address IS NOT NULL
ORDER BY d.digest, u.created_at;
-- @ batches
-- Profiles that are gone: their digests move here. An id is never taken over any more, so none is looked for by digest.
WITH gone AS (
    SELECT p.user_id, p.email_digest, p.deleted_at FROM public.deleted_profiles p WHERE p.email_digest IS NOT NULL
    ORDER BY p.deleted_at DESC LIMIT 5000 FOR UPDATE
), kept AS (
    INSERT INTO public.address_digests (digest, user_id, created_at)
    SELECT g.email_digest, g.user_id, g.deleted_at FROM gone g ORDER BY g.deleted_at DESC
    ON CONFLICT (digest) DO NOTHING
)
UPDATE public.deleted_profiles p SET email_digest = NULL FROM gone g WHERE p.user_id = g.user_id;
-- @ transaction
-- Built-in addresses are in NFC from now on. One whose other spelling is another account stays as it is.
DO $nfc$
BEGIN
    IF current_setting('server_encoding') = 'UTF8'
       AND pg_catalog.obj_description('auth.users'::regclass, 'pg_class') LIKE 'product-base%' THEN
        UPDATE auth.users a SET email = normalize(a.email, NFC)
        WHERE a.email IS NOT NFC NORMALIZED
          AND NOT EXISTS (SELECT FROM auth.users b WHERE b.id <> a.id AND lower(b.email) = lower(normalize(a.email, NFC)));
    END IF;
END
$nfc$;
