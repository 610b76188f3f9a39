UPDATE public.deleted_profiles p SET email_digest = d.digest
FROM (SELECT DISTINCT ON (user_id) user_id, digest FROM public.address_digests ORDER BY user_id, created_at DESC) d
WHERE d.user_id = p.user_id;
DROP TABLE public.address_digests;
