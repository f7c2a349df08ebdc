// SPDX-License-Identifier: Apache-2.0
// The gRPC server of one container.
#ifndef CLIPPER_SRC_SERVER_H_
#define CLIPPER_SRC_SERVER_H_

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>

#include "clipper/container.h"
#include "metrics.h"
#include "settings.h"
#include "wire.h"

namespace clipper::internal {

class Call;
class PredictCall;
class WatchCall;

// A batch to predict, and the stream that its answer goes to.
struct Job {
  std::shared_ptr<PredictCall> call;
  Request request;
  std::optional<std::chrono::steady_clock::time_point> deadline;
};

// Serves one model, on two threads: the model's own, which loads it, takes what comes from the network
// and predicts, so that a batch changes threads at no point; and one that takes over the network
// while a prediction takes long. A model that may run in parallel has more threads that only predict,
// and leaves the network to the second thread.
class Server {
 public:
  Server(const Settings& settings, Loader loader, Metrics& metrics);
  ~Server();

  // Listens, and throws when it cannot. Returns the address, with the port that was taken.
  std::string Listen();

  // Begins to load. Calls either ready, when the model can predict, or failed with the reason, on the model's thread.
  void Load(std::function<void(const Options&)> ready, std::function<void(std::exception_ptr)> failed);

  // Takes no new batch, and returns when what was taken is answered and the streams have ended.
  void Drain();

  // Ends what is left, after Drain. Returns false if the model is still being loaded: its thread cannot be ended then.
  bool Shutdown();

 private:
  friend class Call;
  friend class PredictCall;
  friend class UnaryCall;
  friend class WatchCall;
  struct Accept;

  // The threads.
  void RunModel(const std::function<void(const Options&)>& ready, const std::function<void(std::exception_ptr)>& failed);
  void Work();
  void Relieve();
  void PollOnce();
  void Submit(Job job);
  std::chrono::nanoseconds Run(Job& job);

  // The calls.
  grpc::Status Refusal() const;
  grpc::Status Answer(const std::string& method, const grpc::ByteBuffer& request, grpc::ByteBuffer* response) const;
  grpc::Status Describe(grpc::ByteBuffer* response) const;
  int Health(const std::string& service) const;
  void HealthChanged();

  const Settings settings_;
  const Loader loader_;
  Metrics& metrics_;

  grpc::AsyncGenericService service_;
  std::unique_ptr<grpc::ServerCompletionQueue> events_;
  std::unique_ptr<grpc::Server> server_;
  std::vector<std::thread> threads_;

  std::unique_ptr<Model> model_;  // made and destroyed on the model's thread
  Options declared_;            // by the model, as it was loaded
  std::atomic<const Options*> options_{nullptr};  // when it is loaded
  std::atomic<bool> stopping_{false};

  // Who works on what.
  std::mutex work_mu_;
  std::condition_variable work_, relief_;
  std::deque<Job> queue_;
  bool polling_ = false;        // a thread waits for the network or works on what came from it
  bool relieve_ = true;         // the model's threads do not poll: it is slow, or parallel, or being loaded
  bool dormant_ = false;        // the second thread sleeps until it is woken
  bool ended_ = false;          // there will be no more events
  std::size_t waiting_ = 0;     // threads of the model without work
  std::size_t working_ = 0;     // and with it
  std::uint64_t batches_ = 0;   // that were begun
  double average_seconds_ = 0;  // that a prediction takes
  bool loading_ = true;

  // What is open.
  mutable std::mutex calls_mu_;
  std::condition_variable calls_changed_;
  std::size_t calls_ = 0;
  std::set<PredictCall*> streams_;
  std::set<WatchCall*> watches_;
};

}  // namespace clipper::internal

#endif  // CLIPPER_SRC_SERVER_H_
