// SPDX-License-Identifier: Apache-2.0
// The signatures of a SavedModel, read from the bytes of its MetaGraphDef. TensorFlow's own classes for that message belong to
// another copy of protobuf than gRPC's, and the two must not meet.
#ifndef CLIPPER_TENSORFLOW_SIGNATURE_H_
#define CLIPPER_TENSORFLOW_SIGNATURE_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace clipper::internal {

// A TensorInfo.
struct TensorInfo {
  std::string tensor;  // "operation:output"; empty when it is no single dense tensor
  int type = 0;        // a TF_DataType
  bool unknown_rank = false;
  std::vector<std::int64_t> shape;  // with the batch dimension; -1 is any length
};

// A SignatureDef.
struct Signature {
  std::map<std::string, TensorInfo> inputs, outputs;
};

// The signatures by name. Throws ModelError when the bytes are no MetaGraphDef.
std::map<std::string, Signature> ReadSignatures(std::string_view meta_graph);

}  // namespace clipper::internal

#endif  // CLIPPER_TENSORFLOW_SIGNATURE_H_
