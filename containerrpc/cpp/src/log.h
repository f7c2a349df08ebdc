// SPDX-License-Identifier: Apache-2.0
// Logs of one line each on standard error: time=... level=... msg=... key=value, as Clipper's own.
#ifndef CLIPPER_SRC_LOG_H_
#define CLIPPER_SRC_LOG_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace clipper::internal {

enum class Level { kDebug, kInfo, kWarning, kError };

using Fields = std::vector<std::pair<std::string_view, std::string>>;

// From now on nothing below the level is written. What gRPC logs goes the same way.
void ConfigureLog(Level level);

// Safe for concurrent use.
void Log(Level level, std::string_view message, const Fields& fields = {});

}  // namespace clipper::internal

#endif  // CLIPPER_SRC_LOG_H_
