// SPDX-License-Identifier: Apache-2.0
// Errors of one batch, and how they travel.
#ifndef CLIPPER_SRC_ERRORS_H_
#define CLIPPER_SRC_ERRORS_H_

#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <grpcpp/support/status_code_enum.h>

#include "clipper/v1/error.pb.h"

namespace clipper::internal {

// A batch failed as a whole for a cause that the runtime knows.
struct BatchError : std::runtime_error {
  BatchError(grpc::StatusCode code, v1::ErrorReason reason, const std::string& message, std::string field = {})
      : std::runtime_error(message), code(code), reason(reason), field(std::move(field)) {}

  grpc::StatusCode code;
  v1::ErrorReason reason;
  std::string field;
};

// The error of a request that breaks the container protocol.
inline BatchError Invalid(const std::string& message, std::string field) {
  return {grpc::INVALID_ARGUMENT, v1::ERROR_REASON_INVALID_FIELD, message, std::move(field)};
}

// The error of a model whose output no tensor can hold.
inline BatchError BadOutput(const std::string& message) { return {grpc::INTERNAL, v1::ERROR_REASON_MODEL_PROTOCOL, message}; }

// What an exception says.
std::string Describe(const std::exception_ptr& error);

// The error as it travels; whatever the runtime does not know is the model's own failure.
v1::Error ToMessage(const std::exception_ptr& error);
// The same of words of the model.
v1::Error ToMessage(const std::string& why);

bool IsUtf8(std::string_view text);

}  // namespace clipper::internal

#endif  // CLIPPER_SRC_ERRORS_H_
