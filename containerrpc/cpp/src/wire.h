// SPDX-License-Identifier: Apache-2.0
// Batches from and to the bytes of the container RPC. Elements are neither parsed into messages nor
// serialized from them: they are used where the transport has put them, and sent from where the model
// has put them.
#ifndef CLIPPER_SRC_WIRE_H_
#define CLIPPER_SRC_WIRE_H_

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include "clipper/container.h"
#include "clipper/tensor.h"

namespace clipper::internal {

// A clipper.v1.PredictRequest, and the bytes that its batch is a view of. It can be moved.
struct Request {
  std::uint64_t id = 0;
  std::uint32_t rows = 0;
  std::uint64_t timeout_micros = 0;
  Batch batch;
  std::exception_ptr error;  // what is wrong with the batch; it has no inputs then
  std::vector<grpc::Slice> received;
  std::vector<std::shared_ptr<void>> copied;
};

class Decoder {
 public:
  // Reads a request, and sees to it that the batch is as the options say. Returns nothing for bytes
  // that are no message.
  static std::optional<Request> Decode(const grpc::ByteBuffer& bytes, const Options& options);
};

class Encoder {
 public:
  // The clipper.v1.PredictResponse with a result.
  static grpc::ByteBuffer Encode(std::uint64_t id, Result result, std::uint64_t predict_micros);
  // The one with an error.
  static grpc::ByteBuffer Encode(std::uint64_t id, const std::exception_ptr& error, std::uint64_t predict_micros);
  // The number of rows that failed.
  static std::size_t Failed(const Result& result) { return result.failed_.size(); }
};

// The field 1 of a message, as text: all that the requests of grpc.health.v1.Health have.
std::optional<std::string> FirstText(const grpc::ByteBuffer& bytes);

}  // namespace clipper::internal

#endif  // CLIPPER_SRC_WIRE_H_
