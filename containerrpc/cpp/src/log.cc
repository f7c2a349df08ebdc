// SPDX-License-Identifier: Apache-2.0
#include "log.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <chrono>
#include <cstdio>
#include <ctime>

#include <grpc/support/log.h>

namespace clipper::internal {
namespace {

std::atomic<Level> lowest{Level::kInfo};

constexpr std::array<const char*, 4> kLevels = {"DEBUG", "INFO", "WARN", "ERROR"};

void AppendValue(std::string* line, std::string_view value) {
  const bool plain = !value.empty() && std::all_of(value.begin(), value.end(), [](char c) {
    return std::isspace(static_cast<unsigned char>(c)) == 0 && c != '"' && c != '=' && c != '\\';
  });
  if (plain) {
    line->append(value);
    return;
  }
  line->push_back('"');
  for (const char c : value) {
    if (c == '\n') {
      line->append("\\n");
    } else if (static_cast<unsigned char>(c) < 0x20) {
      std::array<char, 8> escaped{};
      std::snprintf(escaped.data(), escaped.size(), "\\u%04x", static_cast<unsigned>(c));
      line->append(escaped.data());
    } else {
      if (c == '"' || c == '\\') line->push_back('\\');
      line->push_back(c);
    }
  }
  line->push_back('"');
}

void LogOfGrpc(gpr_log_func_args* args) {
  const Level level = args->severity == GPR_LOG_SEVERITY_ERROR ? Level::kError : args->severity == GPR_LOG_SEVERITY_INFO ? Level::kInfo : Level::kDebug;
  Log(level, args->message, {{"logger", "grpc"}});
}

}  // namespace

void ConfigureLog(Level level) {
  lowest = level;
  gpr_set_log_function(LogOfGrpc);
}

void Log(Level level, std::string_view message, const Fields& fields) {
  if (level < lowest.load()) return;
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 64> time{};
  const std::size_t size = std::strftime(time.data(), time.size(), "time=%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(time.data() + size, time.size() - size, ".%03d+00:00", static_cast<int>(millis));

  std::string line = time.data();
  line.append(" level=").append(kLevels[static_cast<std::size_t>(level)]).append(" msg=");
  AppendValue(&line, message);
  for (const auto& [key, value] : fields) {
    line.append(" ").append(key).append("=");
    AppendValue(&line, value);
  }
  line.push_back('\n');
  // One call, so that lines of several threads do not mix.
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace clipper::internal
