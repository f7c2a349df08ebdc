// SPDX-License-Identifier: Apache-2.0
// Streams of one client.
#ifndef CLIPPER_CLIENT_SRC_STREAM_H_
#define CLIPPER_CLIENT_SRC_STREAM_H_

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "connection.h"

namespace clipper::client::internal {

// A stream of queries. It keeps itself until the stream has ended.
class Stream : public grpc::ClientBidiReactor<Message, Message>, public std::enable_shared_from_this<Stream> {
 public:
  using Done = std::function<void(Result<v1::QueryResponse>)>;

  static std::shared_ptr<Stream> Open(std::shared_ptr<Connection> connection);
  void Query(v1::QueryRequest request, Done done);
  void Close() { context_.TryCancel(); }

  void OnWriteDone(bool ok) override;
  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  explicit Stream(std::shared_ptr<Connection> connection) : connection_(std::move(connection)) {}

  std::shared_ptr<Connection> connection_;
  grpc::ClientContext context_;
  std::shared_ptr<Stream> self_;
  v1::QueryStreamResponse answer_;

  std::mutex mutex_;
  std::uint64_t last_ = 0;
  std::unordered_map<std::uint64_t, Done> waiting_;
  std::deque<v1::QueryStreamRequest> unsent_;  // the first is being sent
  bool broken_ = false;                        // nothing more is read or sent
  std::optional<Error> end_;                   // why it has ended
};

// Makes a call that answers with many messages, each of which is read into `message`.
std::optional<Error> ReadEach(Connection& connection, const char* method, const Message& request, Message& message,
                              const std::function<bool()>& each);

}  // namespace clipper::client::internal

#endif  // CLIPPER_CLIENT_SRC_STREAM_H_
