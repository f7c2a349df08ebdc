// SPDX-License-Identifier: Apache-2.0
// Keeps a container registered at Clipper as a replica that no launcher has started.
#ifndef CLIPPER_SRC_REGISTRATION_H_
#define CLIPPER_SRC_REGISTRATION_H_

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include "clipper/v1/model_service.grpc.pb.h"
#include "settings.h"

namespace clipper::internal {

// Where others reach a server: its address, with the host name when that is all of the machine's.
std::string ReachedAt(const std::string& serving);

// An id made of an address, so that a container that is started again there is the same replica.
std::string ReplicaId(const std::string& address);

class Registration {
 public:
  // serving is where the container listens. Throws when the model's name or version is not known, or a file of
  // the settings cannot be used.
  Registration(const Settings& settings, const std::string& serving);
  ~Registration() { Leave(); }

  // Registers and renews from now on, on a thread of its own, which calls refused with the reason if Clipper does not want
  // this replica.
  void Keep(std::function<void(std::string)> refused);

  // Gives the registration up, so that nothing new comes.
  void Leave();

 private:
  void Renew(const std::function<void(std::string)>& refused);
  grpc::Status Register(grpc::ClientContext& context);

  const Settings settings_;
  v1::RegisterReplicaRequest request_;
  std::unique_ptr<v1::ModelService::Stub> service_;
  bool registered_ = false;  // or perhaps, when an answer is lost; of the thread, and of Leave when it has ended
  std::thread thread_;
  std::mutex mu_;
  std::condition_variable changed_;
  bool leaving_ = false;
  grpc::ClientContext* renewing_ = nullptr;  // the call that Leave need not wait for
};

}  // namespace clipper::internal

#endif  // CLIPPER_SRC_REGISTRATION_H_
