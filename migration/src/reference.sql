-- The facts of a schema by kind. Every query returns (subject, value, make): two schemas are equal if their values are.
-- `make` is the statement that creates an object of that value, or NULL. {relations} are our tables and partitions in
-- the schema {schema}. Objects of partitions are listed without names: Postgres chooses those by the order of the
-- steps.

-- @ TABLE
SELECT o.name AS subject, concat_ws(', ', 'kind ' || o.relkind::text, 'persistence ' || o.relpersistence::text, CASE WHEN o.relforcerowsecurity THEN 'row-level security is forced' END,
    'options ' || (SELECT string_agg(x, ' ' ORDER BY x) FROM unnest(o.reloptions) x), 'replica identity ' || o.relreplident::text,
    'of ' || o.parent, pg_catalog.pg_get_expr(o.relpartbound, o.oid), CASE WHEN o.relowner <> {owner} THEN 'owner ' || pg_catalog.pg_get_userbyid(o.relowner) END) AS value,
    format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', o.name) AS make
FROM {relations} o

-- @ COLUMN
SELECT o.name || '.' || a.attname AS subject, concat_ws(' ', pg_catalog.format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'NOT NULL' END,
    'DEFAULT ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid), 'identity ' || nullif(a.attidentity::text, ''), 'generated ' || nullif(a.attgenerated::text, ''),
    (SELECT 'COLLATE ' || l.collname FROM pg_catalog.pg_collation l WHERE l.oid = a.attcollation)) AS value,
    CASE WHEN NOT o.relispartition AND a.attidentity = '' AND a.attgenerated = '' THEN
        format('ALTER TABLE %1$s ALTER COLUMN %2$I %3$s, ALTER COLUMN %2$I %4$s NOT NULL', o.name, a.attname,
            coalesce('SET DEFAULT ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid), 'DROP DEFAULT'), CASE WHEN a.attnotnull THEN 'SET' ELSE 'DROP' END) END AS make
FROM {relations} o JOIN pg_catalog.pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum

-- @ INDEX
SELECT CASE WHEN o.relispartition THEN o.name || ' ' || nameless.definition ELSE o.schema || '.' || c.relname END AS subject,
    concat_ws(', ', CASE WHEN o.relispartition THEN nameless.definition ELSE pg_catalog.pg_get_indexdef(x.indexrelid) END,
        CASE WHEN NOT x.indisvalid THEN 'not valid' END, CASE WHEN NOT x.indisready OR NOT x.indislive THEN 'not used' END) AS value,
    CASE WHEN NOT o.relispartition AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = x.indexrelid AND k.conrelid = x.indrelid)
        THEN pg_catalog.pg_get_indexdef(x.indexrelid) END AS make
FROM {relations} o JOIN pg_catalog.pg_index x ON x.indrelid = o.oid JOIN pg_catalog.pg_class c ON c.oid = x.indexrelid
CROSS JOIN LATERAL (SELECT regexp_replace(pg_catalog.pg_get_indexdef(x.indexrelid), 'INDEX \S+ ON', 'INDEX ON') AS definition) nameless

-- @ CONSTRAINT
SELECT o.name || ' ' || CASE WHEN o.relispartition THEN pg_catalog.pg_get_constraintdef(k.oid) ELSE k.conname END AS subject,
    concat_ws(', ', pg_catalog.pg_get_constraintdef(k.oid), CASE WHEN NOT k.convalidated THEN 'not validated' END,
        (SELECT 'its triggers are ' || string_agg(DISTINCT t.tgenabled::text, '') FROM pg_catalog.pg_trigger t WHERE t.tgconstraint = k.oid HAVING bool_or(t.tgenabled <> 'O'))) AS value,
    CASE WHEN NOT o.relispartition THEN format('ALTER TABLE %s ADD CONSTRAINT %I %s', o.name, k.conname, pg_catalog.pg_get_constraintdef(k.oid)) END AS make
FROM {relations} o JOIN pg_catalog.pg_constraint k ON k.conrelid = o.oid AND k.contype IN ('p', 'u', 'f', 'c', 'x')
ORDER BY strpos('pucxf', k.contype::text)

-- @ TRIGGER
SELECT o.name || ':' || t.tgname AS subject, pg_catalog.pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN '' WHEN 'D' THEN ', disabled' ELSE ', enabled as ' || t.tgenabled::text END AS value,
    CASE WHEN t.tgparentid = 0 THEN format('ALTER TABLE %s ENABLE TRIGGER %I', o.name, t.tgname) END AS make
FROM {relations} o JOIN pg_catalog.pg_trigger t ON t.tgrelid = o.oid AND NOT t.tgisinternal

-- @ RULE
SELECT o.name || ':' || r.rulename AS subject, r.ev_enabled::text || ' ' || pg_catalog.pg_get_ruledef(r.oid) AS value, NULL::text AS make
FROM {relations} o JOIN pg_catalog.pg_rewrite r ON r.ev_class = o.oid

-- @ POLICY
SELECT o.name || ':' || p.polname AS subject, concat_ws(' ', CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END, 'for ' || p.polcmd::text, 'to ' || (
        SELECT string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(r) END, ', ' ORDER BY pg_catalog.pg_get_userbyid(r)) FROM unnest(p.polroles) r),
    'USING ' || pg_catalog.pg_get_expr(p.polqual, p.polrelid), 'CHECK ' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)) AS value, NULL::text AS make
FROM {relations} o JOIN pg_catalog.pg_policy p ON p.polrelid = o.oid

-- @ SEQUENCE
SELECT '{schema}.' || c.relname AS subject, concat_ws(' ', pg_catalog.format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle::text,
    CASE WHEN c.relowner <> {owner} THEN 'owner ' || pg_catalog.pg_get_userbyid(c.relowner) END) AS value,
    format('ALTER SEQUENCE {schema}.%I INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s %s', c.relname, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, CASE WHEN s.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END) AS make
FROM {relations} o JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = o.oid AND d.classid = d.refclassid AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'S' JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid

-- @ FUNCTION
SELECT p.oid::pg_catalog.regprocedure::text AS subject, pg_catalog.pg_get_functiondef(p.oid)
    || CASE WHEN p.proowner <> {owner} THEN ', owner ' || pg_catalog.pg_get_userbyid(p.proowner) ELSE '' END AS value,
    format('ALTER FUNCTION %s OWNER TO CURRENT_USER', p.oid::pg_catalog.regprocedure) AS make
FROM pg_catalog.pg_proc p
WHERE p.prokind = 'f' AND ((p.pronamespace = '{schema}'::pg_catalog.regnamespace AND p.proname = ANY ({functions}))
    OR ({builtin} AND p.pronamespace = pg_catalog.to_regnamespace('{auth}') AND pg_catalog.obj_description(p.oid, 'pg_proc') LIKE 'product-base%'))

-- @ VIEW
SELECT '{schema}.' || c.relname AS subject, concat_ws(' ', c.relkind, (
        SELECT string_agg(x.option_name || '=' || CASE WHEN x.option_name IN ('security_invoker', 'security_barrier') THEN x.option_value::pg_catalog.bool::text ELSE x.option_value END, ' ' ORDER BY x.option_name)
        FROM pg_catalog.pg_options_to_table(c.reloptions) x),
    (SELECT string_agg(r.rulename || ' ' || r.ev_enabled::text, ' ' ORDER BY r.rulename) FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid),
    (SELECT string_agg(t.tgname, ' ' ORDER BY t.tgname) FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid),
    (SELECT string_agg(a.attname || ' DEFAULT ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid), ' ' ORDER BY a.attnum) FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE d.adrelid = c.oid),
    CASE WHEN c.relowner <> {owner} THEN 'owner ' || pg_catalog.pg_get_userbyid(c.relowner) END, pg_catalog.pg_get_viewdef(c.oid)) AS value,
    format('ALTER VIEW {schema}.%I OWNER TO CURRENT_USER', c.relname) AS make
FROM pg_catalog.pg_class c
WHERE c.relnamespace = '{schema}'::pg_catalog.regnamespace AND c.relkind IN ('v', 'm', 'r') AND c.relname = ANY ({views})
