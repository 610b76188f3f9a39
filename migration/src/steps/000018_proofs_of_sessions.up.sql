-- When the holder of a session last proved who they are, and by which its network is known again. NULL for sessions of
-- earlier releases: those count from created_at. Neither column has a default, so no row is written.
ALTER TABLE public.sessions ADD COLUMN authenticated_at timestamptz;
ALTER TABLE public.sessions ADD COLUMN network_mark bytea;
