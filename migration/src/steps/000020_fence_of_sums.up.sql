-- How far the sums of use are final: see roll_up_usage. The columns are empty until it runs for the first time.
ALTER TABLE public.rollup_watermarks
    ADD COLUMN final_at timestamptz,
    ADD COLUMN fence_at timestamptz,
    ADD COLUMN fence_xid xid8;
