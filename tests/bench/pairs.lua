-- Pairs: a reservation, then its settlement. wrk does not report the connection of a response, so open reservations
-- wait in a queue of the thread: the next request, on any connection, settles the oldest, and makes a reservation only
-- if there is none. The idempotency key contains the caller's number, because the response repeats it and only that
-- caller may settle.

local held, first, last = {}, 1, 0
items = 0

function request()
    local hold = held[first]
    if hold then
        held[first] = nil
        first = first + 1
        return compose(PATH .. "/" .. hold.id .. "/settle", '{"amount":1}', hold.number)
    end
    local number = caller()
    local key = unique() .. "-" .. number
    return compose(PATH, '{"feature_id":"bench_calls","idempotency_key":"' .. key .. '"}', number)
end

-- In the measurement too: the settlement needs the id. 200 is the status of a settlement, and only that completes a
-- pair.
function response(status, _, text)
    if WARMING then look_at(status, text) end
    if status == 200 then items = items + 1 end
    if status ~= 201 then return end
    local id = string.match(text, '"id":"([^"]+)"')
    local number = string.match(text, '"idempotency_key":"[^"]*%-(%d+)"')
    if id and number then
        last = last + 1
        held[last] = { id = id, number = tonumber(number) }
    else
        refusal = "201 without what is needed to settle: " .. text
    end
end
