-- The rules of sequence_rules.py over states kept under KEYS; one call is one batch, and one atomic step.
--
-- ARGV[1], JSON: rules; ttl_seconds; seeds, one a key: "" (nothing is known of it elsewhere yet), "new" (it begins),
-- a state (used where the key is absent or older), or "!" and a state (used in any case); checks, arrays of: place of the key,
-- sequence / 10^9, sequence % 10^9, microseconds, day, sub-index, partition, offset; -1 where there is none.
--
-- A state is text: numbers by comma, then its holes, each after a semicolon. A Lua number is exact to 2^53 only, so a
-- stream's numbers are kept relative to its first one, `hi * 10^9 + lo`.
--
-- Returns "missing" and the places of the keys that are absent and have no seed, with nothing changed; or "done", one
-- letter a check, the number expected for each check that is not plainly NORMAL, and the states as they are now.
local BILLION = 1e9
local request = cjson.decode(ARGV[1])
local rules, seeds = request.rules, request.seeds
local states = {}
local NAMES = {'hi', 'lo', 'first', 'last', 'sub', 'day', 'day_begin', 'time', 'partition', 'offset', 'numbering'}
local HOLE = {'first', 'last', 'numbering', 'from_day', 'to_day', 'time', 'offset'}

local function read(text, names)
  local record, place = {}, 1
  for number in string.gmatch(text, '[^,]+') do
    record[names[place]] = tonumber(number)
    place = place + 1
  end
  return record
end

local function write(record, names)
  local numbers = {}
  for place, name in ipairs(names) do
    numbers[place] = string.format('%.0f', record[name])
  end
  return table.concat(numbers, ',')
end

local function parse(text)
  local state
  for part in string.gmatch(text, '[^;]+') do
    if state then
      table.insert(state.holes, read(part, HOLE))
    else
      state = read(part, NAMES)
      state.holes = {}
    end
  end
  return state
end

local function format(state)
  local parts = {write(state, NAMES)}
  for _, hole in ipairs(state.holes) do
    table.insert(parts, write(hole, HOLE))
  end
  return table.concat(parts, ';')
end

-- A stream's time never goes back: a server that holds an earlier one came back with an older copy.
local function older(held, state)
  if held.time ~= state.time then return held.time < state.time end
  return held.partition == state.partition and held.offset < state.offset
end

local missing = {}
for place, key in ipairs(KEYS) do
  local seed = seeds[place]
  if string.sub(seed, 1, 1) == '!' then
    states[place] = parse(string.sub(seed, 2))
  else
    local held = redis.call('GET', key)
    if held then
      states[place] = parse(held)
      if held ~= seed and seed ~= '' and seed ~= 'new' then
        local known = parse(seed)
        if older(states[place], known) then states[place] = known end
      end
    elseif seed == '' then
      table.insert(missing, place)
    elseif seed ~= 'new' then
      states[place] = parse(seed)
    end
  end
end
if #missing > 0 then
  return {'missing', table.concat(missing, ',')}
end

local function earlier(day, other)
  return day ~= -1 and other ~= -1 and day < other
end

local function fill(state, sequence, day, current)
  for place = #state.holes, 1, -1 do
    local hole = state.holes[place]
    if hole.first <= sequence and sequence <= hole.last and (hole.numbering == state.numbering) == current
      and (current or not (earlier(day, hole.from_day) or earlier(hole.to_day, day))) then
      table.remove(state.holes, place)
      for _, range in ipairs({{sequence + 1, hole.last}, {hole.first, sequence - 1}}) do
        if range[1] <= range[2] then
          table.insert(state.holes, place, {
            first = range[1], last = range[2], numbering = hole.numbering, from_day = hole.from_day,
            to_day = hole.to_day, time = hole.time, offset = hole.offset,
          })
        end
      end
      return true
    end
  end
  return false
end

local function advance(state, sequence, check)
  state.last, state.sub = sequence, check[6]
  state.day = math.max(state.day, check[5])
  if state.day_begin == -1 then state.day_begin = check[5] end
end

local function begin(check)
  return {
    hi = check[2], lo = check[3], first = 0, last = 0, sub = check[6], day = check[5], day_begin = check[5],
    time = check[4], partition = check[7], offset = check[8], numbering = 0, holes = {},
  }
end

local function behind(state, sequence, check)
  local day, sub = check[5], check[6]
  if sequence == state.last and sub > state.sub then
    advance(state, sequence, check)
    return 'N'
  end
  local new_day = earlier(state.day, day)
  if not new_day and fill(state, sequence, day, true) then return 'O' end
  local number = check[2] * BILLION + check[3]
  local low = number <= rules.reset_number_max and state.last - sequence >= rules.reset_distance_min
  if new_day or (low and not earlier(day, state.day)) then
    if not new_day then state.holes = {} end
    state.numbering = state.numbering + 1
    state.first, state.last, state.sub = sequence, sequence, sub
    state.day = math.max(state.day, day)
    state.day_begin = state.day
    return 'R'
  end
  if sequence < state.first or (sequence < state.last and sub > 0) then return 'O' end
  return 'D'
end

local function classified(state, sequence, check, time)
  if earlier(check[5], state.day_begin) then
    fill(state, sequence, check[5], false)
    return 'O'
  end
  if sequence <= state.last then return behind(state, sequence, check) end
  local kind = 'n'
  if sequence > state.last + 1 then
    kind = 'G'
    table.insert(state.holes, {
      first = state.last + 1, last = sequence - 1, numbering = state.numbering, from_day = state.day,
      to_day = math.max(state.day, check[5]), time = time, offset = check[8],
    })
    if #state.holes > rules.holes_max then table.remove(state.holes, 1) end
  end
  advance(state, sequence, check)
  return kind
end

local function far(offset, other)
  return offset ~= -1 and other ~= -1 and offset - other > rules.memory_offsets
end

local kinds, expected = {}, {}
for place, check in ipairs(request.checks) do
  local state, offset = states[check[1]], check[8]
  if not state then
    states[check[1]] = begin(check)
    kinds[place] = 'b'
  elseif offset ~= -1 and check[7] == state.partition and offset <= state.offset then
    kinds[place] = 'r'
    table.insert(expected, string.format('%.0f,%.0f,%.0f', state.hi, state.lo, state.last + 1))
  else
    local time = math.max(check[4], state.time)
    if time - state.time > rules.memory_us or far(offset, state.offset) then
      states[check[1]] = begin(check)
      kinds[place] = 'b'
    else
      local kept = {}
      for _, hole in ipairs(state.holes) do
        if time - hole.time <= rules.memory_us and not far(offset, hole.offset) then table.insert(kept, hole) end
      end
      state.holes = kept
      local sequence = (check[2] - state.hi) * BILLION + (check[3] - state.lo)
      local next_number = string.format('%.0f,%.0f,%.0f', state.hi, state.lo, state.last + 1)
      kinds[place] = classified(state, sequence, check, time)
      if kinds[place] ~= 'n' then table.insert(expected, next_number) end
      state.time, state.partition, state.offset = time, check[7], offset
    end
  end
end

local texts = {}
for place, key in ipairs(KEYS) do
  texts[place] = format(states[place])
  redis.call('SET', key, texts[place], 'EX', request.ttl_seconds)
end
return {'done', table.concat(kinds), table.concat(expected, ';'), texts}
