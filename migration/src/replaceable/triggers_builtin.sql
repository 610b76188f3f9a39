CREATE OR REPLACE TRIGGER update_auth_users_updated_at BEFORE UPDATE ON auth.users
    FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();
COMMENT ON TRIGGER update_auth_users_updated_at ON auth.users IS 'product-base';
