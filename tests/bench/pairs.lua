-- Pairs: a reservation, then its settlement. wrk does not say on which connection an answer came, so what is held and not
-- yet settled waits in a queue of the thread: the next request, of whichever connection, settles the oldest, and only
-- where there is none reserves. The key carries the number of the caller, since the answer repeats it and nobody else
-- may settle.

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

-- In the measurement too: without the id there is nothing to settle. 200 is the answer of a settlement, and only that
-- makes a pair.
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
