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

// KEYS: the index of keys, the times at which to look at keys that expire, the sums
// of m keys, the once identity of each addition. ARGV: m, what the names of sums
// begin with, sweepPerAdd; for each of the m its key, the number of its fields, the
// fields; for each addition the time to live of its identity in milliseconds or 0, and
// its updates: four bytes for the number of the key, eight for its time to live in
// milliseconds or 0, four for the number of its deltas, and then for each delta four
// for the number of the field and eight for the delta (integers and float64,
// little-endian, counted from 1). It returns the answer to each addition: 1, 0 for a
// repetition, or replyOverflow.
//
// Additions of many callers share a run, so that a sum to which all of them add is
// read, formatted and written once. The order of the additions is kept, and one that
// is refused leaves the others alone: the sums are those of one run for each.
//
// It adds in float64, as the embedded store does, and not by HINCRBYFLOAT, which
// keeps 17 decimals only and can refuse an overflow when other fields have been
// written already.
//
// Sums that expire do so by themselves; their names stay in the index until somebody looks: here, when
// others are made, or in listSumsScript. The time at which to look is the expiry when the key was
// new, and is moved on then if its life has grown.
var addScript = redis.NewScript(`
local chunk = 1000
local m, arg, groups = tonumber(ARGV[1]), 4, {}
for g = 1, m do
  local n, sums = tonumber(ARGV[arg + 1]), {}
  for from = 1, n, chunk do
    local to = math.min(from + chunk - 1, n)
    for _, sum in ipairs(redis.call('HMGET', KEYS[2 + g], unpack(ARGV, arg + 1 + from, arg + 1 + to))) do
      sums[#sums + 1] = tonumber(sum or 0)
    end
  end
  groups[g] = {key = ARGV[arg], fields = arg + 1, sums = sums, changed = {}}
  arg = arg + 2 + n
end
local replies, remember = {}, {}
for a = 1, #KEYS - 2 - m do
  local once, ttl, updates = KEYS[2 + m + a], ARGV[arg], ARGV[arg + 1]
  arg = arg + 2
  if ttl ~= '0' and (remember[once] or redis.call('EXISTS', once) == 1) then
    replies[a] = 0
  else
    local at, results, lives, fits = 1, {}, {}, true
    while at <= #updates do
      local g, life, n, i, delta
      g, life, n, at = struct.unpack('<I4dI4', updates, at)
      lives[#lives + 1] = {groups[g], life}
      for _ = 1, n do
        i, delta, at = struct.unpack('<I4d', updates, at)
        local sum = groups[g].sums[i] + delta
        fits = fits and sum ~= math.huge and sum ~= -math.huge
        results[#results + 1] = {groups[g], i, sum}
      end
    end
    if fits then
      for _, r in ipairs(results) do
        r[1].sums[r[2]] = r[3]
        r[1].changed[r[2]] = true
      end
      for _, l in ipairs(lives) do l[1].life = l[2] end
      if ttl ~= '0' then remember[once] = ttl end
      replies[a] = 1
    else
      replies[a] = -3
    end
  end
end
local fresh, made = {}, 0
for g, group in ipairs(groups) do
  local key = KEYS[2 + g]
  if group.life and group.life > 0 then
    local left = redis.call('PTTL', key)
    if left == -1 or left == -2 and next(group.changed) then
      fresh[group.key] = group.life
      made = made + 1
    end
  end
  local write = {'HSET', key}
  for i in pairs(group.changed) do
    write[#write + 1] = ARGV[group.fields + i]
    local sum = group.sums[i]
    -- Counts are many, and the short form is the faster one.
    local count = sum > 0 and sum < 1e15 and sum == math.floor(sum)
    write[#write + 1] = string.format(count and '%d' or '%.17g', sum)
    if #write > 2 * chunk then
      redis.call(unpack(write))
      write = {'HSET', key}
    end
  end
  if #write > 2 then redis.call(unpack(write)) end
  if next(group.changed) then redis.call('ZADD', KEYS[1], 0, group.key) end
  if group.life == 0 then
    redis.call('PERSIST', key)
  elseif group.life then
    redis.call('PEXPIRE', key, group.life)
  end
end
for once, ttl in pairs(remember) do redis.call('SET', once, '', 'PX', ttl) end
if made == 0 then return replies end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for key, life in pairs(fresh) do redis.call('ZADD', KEYS[2], 'NX', now + life, key) end
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, made * ARGV[3])) do
  local left = redis.call('PTTL', ARGV[2] .. key)
  if left >= 0 then
    redis.call('ZADD', KEYS[2], now + left, key)
  else
    redis.call('ZREM', KEYS[2], key)
    if left == -2 then redis.call('ZREM', KEYS[1], key) end
  end
end
return replies
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
