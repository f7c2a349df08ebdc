// SPDX-License-Identifier: Apache-2.0

package storeredis

import "github.com/redis/go-redis/v9"

// A script runs as one step, so nothing comes between its reads and its writes. A
// script that fails halfway is not undone, therefore each one checks first and
// writes last. Negative results are the answers below.
const (
	replyNotFound = -1
	replyConflict = -2
	replyOverflow = -3
)

// The scripts on a document have the same keys: the document (a hash of r, its
// revision, and v, its value; a lease has a Redis expiry), the index of all keys,
// the counter of revisions, the channel of changes.

// ARGV: key, value, expected revision.
var putScript = redis.NewScript(`
local revision = redis.call('HGET', KEYS[1], 'r') or '0'
if revision ~= ARGV[3] then return -2 end
revision = redis.call('INCR', KEYS[3])
redis.call('HSET', KEYS[1], 'r', revision, 'v', ARGV[2])
redis.call('PERSIST', KEYS[1])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('PUBLISH', KEYS[4], ARGV[1])
return revision
`)

// ARGV: key, value, time to live in milliseconds.
var putLeaseScript = redis.NewScript(`
local old = redis.call('HMGET', KEYS[1], 'r', 'v')
if old[1] then
  if redis.call('PTTL', KEYS[1]) == -1 then return -2 end
  if old[2] == ARGV[2] then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    return tonumber(old[1])
  end
end
local revision = redis.call('INCR', KEYS[3])
redis.call('HSET', KEYS[1], 'r', revision, 'v', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('PUBLISH', KEYS[4], ARGV[1])
return revision
`)

// ARGV: key, expected revision or 0.
var deleteScript = redis.NewScript(`
local revision = redis.call('HGET', KEYS[1], 'r')
if not revision then return -1 end
if ARGV[2] ~= '0' and ARGV[2] ~= revision then return -2 end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('PUBLISH', KEYS[4], ARGV[1])
return 0
`)

// KEYS: the index. ARGV: what the names of documents begin with, first and last
// key in the notation of ZRANGEBYLEX. It returns key, revision, value and time to
// live of each document, and forgets keys whose lease has ended.
var listScript = redis.NewScript(`
local list = {}
for _, key in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], ARGV[2], ARGV[3])) do
  local name = ARGV[1] .. key
  local doc = redis.call('HMGET', name, 'r', 'v')
  if doc[1] then
    list[#list + 1] = key
    list[#list + 1] = doc[1]
    list[#list + 1] = doc[2]
    list[#list + 1] = redis.call('PTTL', name)
  else
    redis.call('ZREM', KEYS[1], key)
  end
end
return list
`)

// KEYS: the once identity, the index of keys, the sums of each key. ARGV: time to
// live of the identity in milliseconds or 0; then for each key its name, the number
// of its fields, the fields, the deltas.
//
// It adds in float64, as the embedded store does, and not by HINCRBYFLOAT, which
// keeps 17 decimals only and can refuse an overflow when other fields have been
// written already.
var addScript = redis.NewScript(`
local ttl = ARGV[1]
if ttl ~= '0' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local chunk = 1000
local writes = {}
local at = 2
for k = 3, #KEYS do
  local name, n = ARGV[at], tonumber(ARGV[at + 1])
  local first = at + 2
  for from = 0, n - 1, chunk do
    local count = math.min(chunk, n - from)
    local start = first + from
    local sums = redis.call('HMGET', KEYS[k], unpack(ARGV, start, start + count - 1))
    local write = {'HSET', KEYS[k]}
    for i = 1, count do
      local sum = (tonumber(sums[i] or 0)) + tonumber(ARGV[start + n + i - 1])
      if sum ~= sum or sum == math.huge or sum == -math.huge then return -3 end
      write[#write + 1] = ARGV[start + i - 1]
      write[#write + 1] = string.format('%.17g', sum)
    end
    writes[#writes + 1] = write
  end
  if n > 0 then writes[#writes + 1] = {'ZADD', KEYS[2], 0, name} end
  at = first + 2 * n
end
for _, write in ipairs(writes) do redis.call(unpack(write)) end
if ttl ~= '0' then redis.call('SET', KEYS[1], '', 'PX', ttl) end
return 1
`)
