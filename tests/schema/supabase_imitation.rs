//! A Supabase project as a migration finds it: `auth` belongs to another role, `auth.users` has its 35 columns and
//! row-level security without a policy, default privileges grant everything new in `public` to every role, the roles
//! exist, and the migrating login is no superuser and owns nothing in `auth`.

/// The migrating login: the equivalent of `postgres` on Supabase.
pub const MIGRATOR: &str = "team";
pub const MIGRATOR_PASSWORD: &str = "a password of the team";

pub fn imitation(database: &str) -> String {
    format!("{ROLES} ALTER DATABASE {database} OWNER TO team; {AUTH} {PUBLIC}")
}

const ROLES: &str = "
CREATE ROLE anon NOLOGIN NOINHERIT;
CREATE ROLE authenticated NOLOGIN NOINHERIT;
CREATE ROLE service_role NOLOGIN NOINHERIT BYPASSRLS;
CREATE ROLE authenticator LOGIN NOINHERIT PASSWORD 'authenticator';
GRANT anon, authenticated, service_role TO authenticator;
CREATE ROLE supabase_auth_admin LOGIN NOINHERIT CREATEROLE PASSWORD 'auth';
CREATE ROLE team LOGIN CREATEDB CREATEROLE REPLICATION BYPASSRLS PASSWORD 'a password of the team';
GRANT anon, authenticated, service_role TO team;
";

const AUTH: &str = "
CREATE SCHEMA auth AUTHORIZATION supabase_auth_admin;
GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role, team;
SET ROLE supabase_auth_admin;
CREATE TABLE auth.users (
    instance_id uuid, id uuid NOT NULL PRIMARY KEY, aud varchar(255), role varchar(255), email varchar(255),
    encrypted_password varchar(255), email_confirmed_at timestamptz, invited_at timestamptz, confirmation_token varchar(255),
    confirmation_sent_at timestamptz, recovery_token varchar(255), recovery_sent_at timestamptz,
    email_change_token_new varchar(255), email_change varchar(255), email_change_sent_at timestamptz,
    last_sign_in_at timestamptz, raw_app_meta_data jsonb, raw_user_meta_data jsonb, is_super_admin boolean,
    created_at timestamptz, updated_at timestamptz, phone text DEFAULT NULL UNIQUE, phone_confirmed_at timestamptz,
    phone_change text DEFAULT '', phone_change_token varchar(255) DEFAULT '', phone_change_sent_at timestamptz,
    confirmed_at timestamptz GENERATED ALWAYS AS (LEAST(email_confirmed_at, phone_confirmed_at)) STORED,
    email_change_token_current varchar(255) DEFAULT '', email_change_confirm_status smallint DEFAULT 0
        CHECK (email_change_confirm_status BETWEEN 0 AND 2),
    banned_until timestamptz, reauthentication_token varchar(255) DEFAULT '', reauthentication_sent_at timestamptz,
    is_sso_user boolean NOT NULL DEFAULT false, deleted_at timestamptz, is_anonymous boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE auth.users IS 'Auth: Stores user login data within a secure schema.';
CREATE UNIQUE INDEX users_email_partial_key ON auth.users (email) WHERE is_sso_user = false;
ALTER TABLE auth.users ENABLE ROW LEVEL SECURITY;
GRANT ALL ON auth.users TO team;
CREATE TABLE auth.sessions (id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE);
ALTER TABLE auth.sessions ENABLE ROW LEVEL SECURITY;
CREATE TABLE auth.refresh_tokens (id bigserial PRIMARY KEY, token varchar(255));
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
        (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'))::uuid $$;
CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(nullif(current_setting('request.jwt.claim.role', true), ''),
        (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'))::text $$;
CREATE FUNCTION auth.email() RETURNS text LANGUAGE sql STABLE AS $$ SELECT nullif(current_setting('request.jwt.claim.email', true), '') $$;
CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(nullif(current_setting('request.jwt.claim', true), ''), nullif(current_setting('request.jwt.claims', true), ''))::jsonb $$;
RESET ROLE;
";

/// With a table of another team, which every role may read, as on Supabase.
const PUBLIC: &str = "
GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE team IN SCHEMA public GRANT ALL ON TABLES TO team, anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE team IN SCHEMA public GRANT ALL ON FUNCTIONS TO team, anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE team IN SCHEMA public GRANT ALL ON SEQUENCES TO team, anon, authenticated, service_role;
SET ROLE team;
CREATE TABLE public.theirs (id bigserial PRIMARY KEY, note text);
INSERT INTO public.theirs (note) VALUES ('kept');
CREATE FUNCTION public.their_function() RETURNS int LANGUAGE sql AS 'SELECT 1';
RESET ROLE;
";
