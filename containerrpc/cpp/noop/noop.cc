// SPDX-License-Identifier: Apache-2.0
// A container that computes nothing: it answers 0 to every row, whatever it is. It measures what
// everything around a model costs.
#include <cstdint>

#include "clipper/container.h"

int main(int argc, char** argv) {
  clipper::Options options;
  options.outputs = {{clipper::DataType::kInt64}};
  options.properties = {{"framework", "none"}};
  return clipper::Serve(argc, argv, [](const clipper::Batch&, clipper::Result& result) { result.Allocate<std::int64_t>(); }, options);
}
