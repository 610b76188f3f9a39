-- The wrk script of every case. METHOD, PATH, RUN and SEED (different for each run), WARMING and, for callers with a
-- token, TOKENS (a file), TOKEN_LENGTH and TOKEN_COUNT are set before this text. The case's own text follows it; it may
-- define `body()`, or `request()` and `response()` themselves, and count its finished work in `items`.

local threads = {}

-- Runs in wrk's own state, once a thread; the other functions each run in their thread's state.
function setup(thread)
    threads[#threads + 1] = thread
    thread:set("thread_number", #threads)
end

function init()
    math.randomseed(SEED + thread_number)
    start = METHOD .. " "
    rest = " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port .. "\r\n"
    sent = 0
    if TOKENS then
        local file = assert(io.open(TOKENS, "r"))
        -- One text and not a table of lines: a thread starts its requests while the next one still reads.
        tokens = file:read("*a")
        file:close()
    end
end

-- The number of a random caller.
function caller()
    return math.random(0, TOKEN_COUNT - 1)
end

-- A caller's token. Each is on its own line, and all have the same length.
function token(number)
    local at = number * (TOKEN_LENGTH + 1)
    return string.sub(tokens, at + 1, at + TOKEN_LENGTH)
end

-- A text that is unique over all requests of all runs.
function unique()
    sent = sent + 1
    return RUN .. "-" .. thread_number .. "-" .. sent
end

-- By hand, because wrk.format takes several times as long. Without a number the caller is a random one.
function compose(path, body, number)
    local head = start .. path .. rest
    if tokens then head = head .. "Authorization: Bearer " .. token(number or caller()) .. "\r\n" end
    if not body then return head .. "\r\n" end
    return head .. "Content-Type: application/json\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end

function request()
    return compose(PATH, body and body())
end

-- wrk itself counts statuses from 400 on. The warm-up checks every response, which is too slow for the measurement.
function look_at(status, text)
    if status < 200 or status > 299 then refusal = status .. " " .. text end
end

if WARMING then
    function response(status, _, text) look_at(status, text) end
end

function done(summary, latency, _)
    local failed = summary.errors
    local function say(name, value) io.write("bench ", name, " ", string.format("%.0f", value), "\n") end
    say("requests", summary.requests)
    say("microseconds", summary.duration)
    say("p50", latency:percentile(50))
    say("p99", latency:percentile(99))
    say("refused", failed.status)
    say("broken", failed.connect + failed.read + failed.write)
    say("late", failed.timeout)
    local counted
    for _, thread in ipairs(threads) do
        local items, refusal = thread:get("items"), thread:get("refusal")
        if items then counted = (counted or 0) + items end
        if refusal then io.write("bench refusal ", (string.gsub(refusal, "%s+", " ")), "\n") end
    end
    if counted then say("items", counted) end
end
