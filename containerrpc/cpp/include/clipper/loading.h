// SPDX-License-Identifier: Apache-2.0
// What models are loaded from: files and settings. Whatever is wrong with them is a ModelError that says so.
#ifndef CLIPPER_LOADING_H_
#define CLIPPER_LOADING_H_

#include <cstddef>
#include <string>
#include <vector>

namespace clipper {

// The path of the one file in the folder that has the extension (".prototxt"); none and several are errors.
std::string OnlyFile(const std::string& folder, const std::string& extension);

// The numbers in an environment variable, with commas between them. There are `count`: fewer are repeated ("1,2" for four is
// 1, 2, 1, 2), more are an error. Without the variable all are the fallback.
std::vector<double> Numbers(const char* variable, std::size_t count, double fallback);

}  // namespace clipper

#endif  // CLIPPER_LOADING_H_
