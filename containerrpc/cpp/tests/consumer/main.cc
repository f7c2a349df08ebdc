// SPDX-License-Identifier: Apache-2.0
#include <clipper/container.h>

int main(int argc, char** argv) {
  return clipper::Serve(argc, argv, [](const clipper::Batch&, clipper::Result& result) { result.Allocate<float>(); });
}
