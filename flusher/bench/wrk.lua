-- Single events for wrk: each with an id of its own, as the load generator in Python sends them. The first argument begins
-- the ids. What came of it goes to standard output as JSON.
local run, number = "", 0

function init(args)
    run = args[1]
    wrk.headers["Content-Type"] = "application/json"
end

function request()
    number = number + 1
    local body = string.format(
        '{"user_id":"cus_%06d","event_type":"api_call","units":1,"timestamp":"%s","id":"%s-%012x-0000"}',
        number % 100, os.date("!%Y-%m-%dT%H:%M:%SZ"), run, number)
    return wrk.format("POST", "/v1/events", nil, body)
end

function done(summary, latency, requests)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format('\n{"requests": %d, "microseconds": %d, "failed": %d}\n',
        summary.requests, summary.duration, failed))
end
