-- A call that is settled after its user was deleted is written down like any other, and the record of a cost stays under the
-- user's id, as counters and events do. Without these keys no row of a shared batch waits for a row of a user or of a key that
-- another transaction has locked.
-- squawk-ignore ban-drop-constraint
ALTER TABLE public.ai_usage_logs DROP CONSTRAINT fk_ai_usage_logs_user;
-- @ transaction
-- squawk-ignore ban-drop-constraint
ALTER TABLE public.api_key_counters DROP CONSTRAINT fk_api_key_counters_key;
