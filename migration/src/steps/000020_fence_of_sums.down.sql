ALTER TABLE public.rollup_watermarks
    DROP COLUMN final_at,
    DROP COLUMN fence_at,
    DROP COLUMN fence_xid;
