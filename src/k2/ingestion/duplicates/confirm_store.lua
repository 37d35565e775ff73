-- Stores ids of one generation, in one atomic step: KEYS are the set of generations and the mark; other keys are made
-- of ARGV: the namespace with the generation in hex, the generation, bytes of a field, and the entries.
--
-- An entry is the bucket (4 bytes), the field, the length of the value, and 11 bytes that begin with the value; entries
-- of a bucket lie together. Returns what the mark counts by now.
local prefix, generation, field_bytes, entries = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local VALUE_BYTES, WORDS_MAX = 11, 1000
local bucket, words, count = nil, {}, 0

local function store()
  if count > 0 then
    redis.call('HSET', string.format('%s:%x', prefix, bucket), unpack(words, 1, count))
    count = 0
  end
end

for at = 1, #entries, 4 + field_bytes + 1 + VALUE_BYTES do
  local a, b, c, d = string.byte(entries, at, at + 3)
  local own = a + 256 * (b + 256 * (c + 256 * d))
  if own ~= bucket or count >= WORDS_MAX then
    store()
    bucket = own
  end
  local value = at + 4 + field_bytes
  words[count + 1] = string.sub(entries, at + 4, value - 1)
  words[count + 2] = string.sub(entries, value + 1, value + string.byte(entries, value))
  count = count + 2
end
store()
redis.call('SADD', KEYS[1], generation)
return redis.call('HINCRBY', KEYS[2], 'writes', 1)
