// SPDX-License-Identifier: Apache-2.0
// What a client's calls share: two channels, and what every call carries.
#ifndef CLIPPER_CLIENT_SRC_CONNECTION_H_
#define CLIPPER_CLIENT_SRC_CONNECTION_H_

#include <google/protobuf/message.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#if __has_include(<grpcpp/impl/proto_utils.h>)
#include <grpcpp/impl/proto_utils.h>
#else
#include <grpcpp/impl/codegen/proto_utils.h>  // its place in older versions
#endif

#include <memory>
#include <string>

#include "clipper/client.h"

namespace clipper::client::internal {

using Message = google::protobuf::Message;
// Calls methods by their names, with messages of any type.
using Stub = grpc::TemplatedGenericStub<Message, Message>;

class Connection {
 public:
  Connection(Options options, std::shared_ptr<grpc::Channel> query, std::shared_ptr<grpc::Channel> admin)
      : options_(std::move(options)), query_(std::move(query)), admin_(std::move(admin)) {}

  const Options& options() const { return options_; }
  Stub& StubOf(std::string_view method);
  // Adds what every attempt carries.
  void Prepare(std::string_view method, grpc::ClientContext& context) const;

 private:
  const Options options_;
  Stub query_, admin_;
};

}  // namespace clipper::client::internal

#endif  // CLIPPER_CLIENT_SRC_CONNECTION_H_
