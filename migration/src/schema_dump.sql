-- The catalogue as text. Every query answers one column `line`; {tables}, {views} and {functions} are lists of names.
-- Months are left out, so that the text does not depend on the date it was written.

-- @ Tables
SELECT CASE WHEN c.relispartition THEN
        format('CREATE TABLE %s PARTITION OF %s %s;', c.oid::pg_catalog.regclass, i.inhparent::pg_catalog.regclass, pg_catalog.pg_get_expr(c.relpartbound, c.oid))
    ELSE format(E'CREATE TABLE %s (\n%s\n)%s%s;', c.oid::pg_catalog.regclass, body.lines,
        ' PARTITION BY ' || pg_catalog.pg_get_partkeydef(c.oid), ' WITH (' || array_to_string(c.reloptions, ', ') || ')') END
    || CASE WHEN c.relrowsecurity THEN format(E'\nALTER TABLE %s ENABLE ROW LEVEL SECURITY;', c.oid::pg_catalog.regclass) ELSE '' END
    || coalesce(E'\n' || indexes.lines, '') || coalesce(E'\n' || policies.lines, '') || coalesce(E'\n' || triggers.lines, '') AS line
FROM pg_catalog.pg_class c
LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
LEFT JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
CROSS JOIN LATERAL (
    SELECT string_agg('    ' || l.line, E',\n' ORDER BY l.kind, l.n, l.line COLLATE "C") AS lines FROM (
        SELECT 1 AS kind, a.attnum AS n, format('%I %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod))
            || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
            || coalesce(' DEFAULT ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid), '') AS line
        FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT 2, strpos('pufcx', k.contype), format('CONSTRAINT %I %s', k.conname, pg_catalog.pg_get_constraintdef(k.oid))
        FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'f', 'c', 'x')
    ) l
) body
CROSS JOIN LATERAL (
    SELECT string_agg(pg_catalog.pg_get_indexdef(x.indexrelid) || ';', E'\n' ORDER BY ic.relname COLLATE "C") AS lines
    FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class ic ON ic.oid = x.indexrelid
    WHERE x.indrelid = c.oid AND NOT c.relispartition AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = x.indexrelid AND k.conrelid = c.oid)
) indexes
CROSS JOIN LATERAL (
    SELECT string_agg(format('CREATE POLICY %I ON %s FOR %s TO %s%s%s;', o.policyname, c.oid::pg_catalog.regclass, o.cmd,
        array_to_string(o.roles, ', '), ' USING (' || o.qual || ')', ' WITH CHECK (' || o.with_check || ')'), E'\n' ORDER BY o.policyname COLLATE "C") AS lines
    FROM pg_catalog.pg_policies o WHERE o.schemaname = 'public' AND o.schemaname = c.relnamespace::pg_catalog.regnamespace::text AND o.tablename = c.relname
) policies
CROSS JOIN LATERAL (
    SELECT string_agg(pg_catalog.pg_get_triggerdef(t.oid) || ';', E'\n' ORDER BY t.tgname COLLATE "C") AS lines
    FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgparentid = 0
) triggers
WHERE (c.relnamespace = 'public'::pg_catalog.regnamespace AND coalesce(p.relname, c.relname) = ANY ({tables})
        AND c.relkind IN ('r', 'p') AND c.relname !~ '_\d{4}_\d{2}$')
   OR (c.relname = 'users' AND c.relnamespace::pg_catalog.regnamespace::text = 'auth' AND pg_catalog.obj_description(c.oid, 'pg_class') LIKE 'product-base%')
ORDER BY c.relnamespace = 'public'::pg_catalog.regnamespace, array_position({tables}, coalesce(p.relname, c.relname)::text), c.relispartition, c.relname COLLATE "C"

-- @ Functions
SELECT trim(trailing E'\n' FROM pg_catalog.pg_get_functiondef(p.oid)) || ';' AS line
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE (n.nspname = 'public' AND p.proname = ANY ({functions}))
   OR (n.nspname = 'auth' AND pg_catalog.obj_description(p.oid, 'pg_proc') LIKE 'product-base%')
ORDER BY n.nspname COLLATE "C", p.proname COLLATE "C"

-- @ Views
SELECT format(E'CREATE VIEW %s WITH (%s) AS\n%s', c.oid::pg_catalog.regclass, array_to_string(c.reloptions, ', '), pg_catalog.pg_get_viewdef(c.oid, true)) AS line
FROM pg_catalog.pg_class c
WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relname = ANY ({views})
ORDER BY array_position({views}, c.relname::text)

-- @ Rights
SELECT format('GRANT %s ON %s %s TO %s;', string_agg(r.privilege, ', ' ORDER BY r.privilege COLLATE "C"), r.kind, r.object, r.grantee) AS line
FROM (
    SELECT 'TABLE' AS kind, c.oid::pg_catalog.regclass::text AS object, x.grantee::pg_catalog.regrole::text AS grantee, x.privilege_type AS privilege
    FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) x
    WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND (c.relname = ANY ({tables}) OR c.relname = ANY ({views}))
    UNION ALL
    SELECT 'TABLE', a.attrelid::pg_catalog.regclass::text, x.grantee::pg_catalog.regrole::text,
        format('%s (%s)', x.privilege_type, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum))
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) x
    WHERE NOT a.attisdropped AND c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relname = ANY ({tables})
    GROUP BY a.attrelid, x.grantee, x.privilege_type
    UNION ALL
    SELECT 'FUNCTION', p.oid::pg_catalog.regprocedure::text, x.grantee::pg_catalog.regrole::text, x.privilege_type
    FROM pg_catalog.pg_proc p CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) x
    WHERE p.pronamespace = 'public'::pg_catalog.regnamespace AND p.proname = ANY ({functions})
) r
WHERE r.grantee IN ('-', 'anon', 'authenticated', 'app_service', 'app_user', 'readonly_user')
GROUP BY r.kind, r.object, r.grantee
ORDER BY r.kind DESC, r.object COLLATE "C", r.grantee COLLATE "C"
