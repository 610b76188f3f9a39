-- $1 address, $2 mark of a network.
SELECT EXISTS (
    SELECT FROM sessions AS s WHERE s.user_id = identity_find($1) AND s.network_mark = $2
)
