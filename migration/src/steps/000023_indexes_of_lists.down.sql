DROP INDEX public.idx_usage_reservations_ended;
DROP INDEX public.idx_model_prices_valid_from;
DROP INDEX public.idx_audit_logs_table_date;
DROP INDEX public.idx_api_keys_user_date;
DROP INDEX public.idx_users_created_at;
