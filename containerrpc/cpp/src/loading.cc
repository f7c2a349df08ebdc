// SPDX-License-Identifier: Apache-2.0
#include "clipper/loading.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "clipper/container.h"

namespace clipper {

std::string OnlyFile(const std::string& folder, const std::string& extension) {
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == extension) found.push_back(entry.path().string());
  }
  if (found.size() != 1) throw ModelError("the folder has " + std::to_string(found.size()) + " " + extension + " files, and not one");
  return found[0];
}

std::vector<double> Numbers(const char* variable, std::size_t count, double fallback) {
  const char* setting = std::getenv(variable);
  if (setting == nullptr) return std::vector<double>(count, fallback);
  std::vector<double> numbers;
  for (const char* at = setting; at != nullptr;) {
    char* end = nullptr;
    numbers.push_back(std::strtod(at, &end));
    if (end == at || (*end != ',' && *end != '\0') || !std::isfinite(numbers.back()) || numbers.size() > count) {
      throw ModelError(std::string(variable) + " is \"" + setting + "\", and not " +
                       (count == 1 ? "a number" : "1 to " + std::to_string(count) + " numbers with commas between them"));
    }
    at = *end == ',' ? end + 1 : nullptr;
  }
  const std::size_t given = numbers.size();
  for (std::size_t i = given; i < count; i++) numbers.push_back(numbers[i - given]);
  return numbers;
}

}  // namespace clipper
