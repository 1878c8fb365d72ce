-- Spreads calls over subjects, routes or callers. Arguments: what; how many; "random", or "once" to go
-- through them in order; how an API key is written; where to begin.
local what, count, order, at = "", 1, "", 0
local path, credential

function init(args)
  what, count, order = args[1], tonumber(args[2]), args[3]
  path, credential, at = wrk.path, args[4], tonumber(args[5] or 0)
  math.randomseed(os.time())
end

function request()
  local n = at % count
  at = at + 1
  if order ~= "once" then n = math.random(0, count - 1) end
  if what == "subjects" then
    wrk.headers["Claviger-Subject"] = tostring(n)
    return wrk.format(nil, path)
  elseif what == "routes" then
    local name = n == 0 and "" or tostring(n)
    return wrk.format(nil, (path:gsub("^/api", "/api" .. name)))
  else
    wrk.headers["X-Api-Key"] = string.format(credential, n)
    return wrk.format(nil, path)
  end
end
