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

// KEYS: the index of keys, the sums of m keys, the once identity of each addition.
// ARGV: m; for each of the m its key, the number of its fields, the fields; for
// each addition the time to live of its identity in milliseconds or 0, and its
// updates: the number of the key and of its deltas, four bytes each, and then for
// each delta four bytes for the number of the field and eight for the delta (all
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
var addScript = redis.NewScript(`
local chunk = 1000
local m, arg, groups = tonumber(ARGV[1]), 2, {}
for g = 1, m do
  local n, sums = tonumber(ARGV[arg + 1]), {}
  for from = 1, n, chunk do
    local to = math.min(from + chunk - 1, n)
    for _, sum in ipairs(redis.call('HMGET', KEYS[1 + g], unpack(ARGV, arg + 1 + from, arg + 1 + to))) do
      sums[#sums + 1] = tonumber(sum or 0)
    end
  end
  groups[g] = {key = ARGV[arg], fields = arg + 1, sums = sums, changed = {}}
  arg = arg + 2 + n
end
local replies, remember = {}, {}
for a = 1, #KEYS - 1 - m do
  local once, ttl, updates = KEYS[1 + m + a], ARGV[arg], ARGV[arg + 1]
  arg = arg + 2
  if ttl ~= '0' and (remember[once] or redis.call('EXISTS', once) == 1) then
    replies[a] = 0
  else
    local at, results, fits = 1, {}, true
    while at <= #updates do
      local g, n, i, delta
      g, n, at = struct.unpack('<I4I4', updates, at)
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
      if ttl ~= '0' then remember[once] = ttl end
      replies[a] = 1
    else
      replies[a] = -3
    end
  end
end
for g, group in ipairs(groups) do
  local write = {'HSET', KEYS[1 + g]}
  for i in pairs(group.changed) do
    write[#write + 1] = ARGV[group.fields + i]
    local sum = group.sums[i]
    -- Counts are many, and the short form is the faster one.
    local count = sum > 0 and sum < 1e15 and sum == math.floor(sum)
    write[#write + 1] = string.format(count and '%d' or '%.17g', sum)
    if #write > 2 * chunk then
      redis.call(unpack(write))
      write = {'HSET', KEYS[1 + g]}
    end
  end
  if #write > 2 then redis.call(unpack(write)) end
  if next(group.changed) then redis.call('ZADD', KEYS[1], 0, group.key) end
end
for once, ttl in pairs(remember) do redis.call('SET', once, '', 'PX', ttl) end
return replies
`)
