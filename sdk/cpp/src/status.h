// SPDX-License-Identifier: Apache-2.0
// From statuses of gRPC to errors.
#ifndef CLIPPER_CLIENT_SRC_STATUS_H_
#define CLIPPER_CLIENT_SRC_STATUS_H_

#include <grpcpp/support/status.h>

#include "clipper/client/error.h"

namespace clipper::client::internal {

Error ErrorOf(const grpc::Status& status);

// What cannot be right, found before anything was sent.
Error Invalid(std::string message);

}  // namespace clipper::client::internal

#endif  // CLIPPER_CLIENT_SRC_STATUS_H_
