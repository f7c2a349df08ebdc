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

// sweepPerAdd is how many of the keys whose life may have ended an Add looks at, when it makes one that
// will expire. More than it makes, so that what has expired does not pile up in the index.
const sweepPerAdd = 4

// KEYS: the once identity, the index of keys, the times at which to look at keys that expire, the sums
// of each key. ARGV: time to live of the identity in milliseconds or 0, what the names of sums begin with,
// sweepPerAdd; then for each key its name, its time to live in milliseconds or 0, the number of its
// fields, the fields, the deltas.
//
// It adds in float64, as the embedded store does, and not by HINCRBYFLOAT, which
// keeps 17 decimals only and can refuse an overflow when other fields have been
// written already.
//
// Sums that expire do so by themselves; their names stay in the index until somebody looks: here, when
// others are made, or in listSumsScript. The time at which to look is the expiry when the key was
// new, and is moved on then if its life has grown.
var addScript = redis.NewScript(`
local ttl = ARGV[1]
if ttl ~= '0' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local chunk = 1000
local writes = {}
local fresh = {}
local at = 4
for k = 4, #KEYS do
  local name, life, n = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local first = at + 3
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
  if life == '0' then
    writes[#writes + 1] = {'PERSIST', KEYS[k]}
  else
    writes[#writes + 1] = {'PEXPIRE', KEYS[k], life}
    local left = redis.call('PTTL', KEYS[k])
    if left == -1 or left == -2 and n > 0 then fresh[name] = life end
  end
  at = first + 2 * n
end
for _, write in ipairs(writes) do redis.call(unpack(write)) end
if ttl ~= '0' then redis.call('SET', KEYS[1], '', 'PX', ttl) end
if not next(fresh) then return 1 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for name, life in pairs(fresh) do redis.call('ZADD', KEYS[3], 'NX', now + life, name) end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, ARGV[3])) do
  local left = redis.call('PTTL', ARGV[2] .. name)
  if left >= 0 then
    redis.call('ZADD', KEYS[3], now + left, name)
  else
    redis.call('ZREM', KEYS[3], name)
    if left == -2 then redis.call('ZREM', KEYS[2], name) end
  end
end
return 1
`)

// KEYS: the index, the times at which to look at keys that expire. ARGV: what the names of sums begin
// with, first and last key in the notation of ZRANGEBYLEX, how many to look at; 'keys' for the keys alone,
// 'all' for all fields, or 'some' and then the names of fields. It returns how many keys it looked
// at, the last of them, and for each that there is its name, its time to live and its fields and sums; and
// forgets those that have expired.
var listSumsScript = redis.NewScript(`
local keys = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])
local list = {#keys, keys[#keys] or ''}
for _, key in ipairs(keys) do
  local name = ARGV[1] .. key
  local left = redis.call('PTTL', name)
  if left == -2 then
    redis.call('ZREM', KEYS[1], key)
    redis.call('ZREM', KEYS[2], key)
  else
    local sums = {}
    if ARGV[5] == 'all' then
      sums = redis.call('HGETALL', name)
    elseif ARGV[5] == 'some' then
      for i = 6, #ARGV do
        local sum = redis.call('HGET', name, ARGV[i])
        if sum then
          sums[#sums + 1] = ARGV[i]
          sums[#sums + 1] = sum
        end
      end
    end
    list[#list + 1] = {key, left, sums}
  end
end
return list
`)
