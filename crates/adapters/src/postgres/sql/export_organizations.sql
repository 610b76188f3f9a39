SELECT o.id, o.name, o.owner_id, coalesce(m.role, 'owner') AS role, o.created_at
FROM organizations AS o LEFT JOIN organization_members AS m ON m.organization_id = o.id AND m.user_id = $1
WHERE o.owner_id = $1 OR m.user_id = $1 ORDER BY o.created_at DESC, o.id DESC
