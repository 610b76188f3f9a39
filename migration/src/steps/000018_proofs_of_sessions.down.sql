ALTER TABLE public.sessions DROP COLUMN network_mark;
ALTER TABLE public.sessions DROP COLUMN authenticated_at;
