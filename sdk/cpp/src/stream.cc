// SPDX-License-Identifier: Apache-2.0
#include "stream.h"

#include <utility>
#include <vector>

#include "status.h"

namespace clipper::client {
namespace internal {
namespace {

constexpr char kQueryStream[] = "/clipper.v1.QueryService/QueryStream";

Error EndOf(const grpc::Status& status) {
  if (!status.ok()) return ErrorOf(status);
  return {Code::kUnavailable, reason::kUnavailable, "the server has ended the stream: open another one", {}, {}};
}

}  // namespace

std::shared_ptr<Stream> Stream::Open(std::shared_ptr<Connection> connection) {
  std::shared_ptr<Stream> stream(new Stream(std::move(connection)));
  stream->self_ = stream;
  stream->connection_->Prepare(kQueryStream, stream->context_);
  stream->connection_->StubOf(kQueryStream).PrepareBidiStreamingCall(&stream->context_, kQueryStream, {}, stream.get());
  // As long as a read is under way the stream is not done, so writes need no hold.
  stream->StartRead(&stream->answer_);
  stream->StartCall();
  return stream;
}

void Stream::Query(v1::QueryRequest request, Done done) {
  std::optional<Error> end;
  {
    std::lock_guard lock(mutex_);
    end = end_;
    if (!end) {
      const std::uint64_t sequence = ++last_;
      waiting_.emplace(sequence, std::move(done));
      if (broken_) return;  // OnDone will say why.
      v1::QueryStreamRequest& message = unsent_.emplace_back();
      message.set_sequence(sequence);
      *message.mutable_query() = std::move(request);
      if (unsent_.size() == 1) StartWrite(&message);
      return;
    }
  }
  done(*std::move(end));
}

void Stream::OnWriteDone(bool ok) {
  std::lock_guard lock(mutex_);
  unsent_.pop_front();
  if (ok && !broken_ && !unsent_.empty()) StartWrite(&unsent_.front());
}

void Stream::OnReadDone(bool ok) {
  Done done;
  {
    std::lock_guard lock(mutex_);
    if (!ok) {
      broken_ = true;
      return;
    }
    if (auto found = waiting_.find(answer_.sequence()); found != waiting_.end()) {
      done = std::move(found->second);
      waiting_.erase(found);
    }
  }
  if (done) done(ItemResult(std::move(*answer_.mutable_result())));
  answer_.Clear();
  StartRead(&answer_);
}

void Stream::OnDone(const grpc::Status& status) {
  const Error end = EndOf(status);
  std::unordered_map<std::uint64_t, Done> waiting;
  {
    std::lock_guard lock(mutex_);
    end_ = end;
    waiting.swap(waiting_);
  }
  for (auto& [sequence, done] : waiting) done(end);
  self_.reset();  // The last thing: it may end here.
}

namespace {

class Reader : public grpc::ClientBidiReactor<Message, Message> {
 public:
  Reader(Message& message, const std::function<bool()>& each) : message_(message), each_(each) {}

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (each_()) {
      message_.Clear();
      StartRead(&message_);
    } else {
      enough_ = true;
      context.TryCancel();
    }
  }

  void OnDone(const grpc::Status& status) override {
    // Whoever waits may delete this as soon as it has the result.
    const auto promise = result;
    promise->set_value(enough_ || status.ok() ? std::nullopt : std::optional(ErrorOf(status)));
  }

  grpc::ClientContext context;
  const std::shared_ptr<std::promise<std::optional<Error>>> result = std::make_shared<std::promise<std::optional<Error>>>();

 private:
  Message& message_;
  const std::function<bool()>& each_;
  bool enough_ = false;
};

}  // namespace

std::optional<Error> ReadEach(Connection& connection, const char* method, const Message& request, Message& message,
                              const std::function<bool()>& each) {
  auto reader = std::make_unique<Reader>(message, each);
  auto result = reader->result->get_future();
  connection.Prepare(method, reader->context);
  connection.StubOf(method).PrepareBidiStreamingCall(&reader->context, method, {}, reader.get());
  reader->StartWriteLast(&request, grpc::WriteOptions());
  reader->StartRead(&message);
  reader->StartCall();
  return result.get();
}

}  // namespace internal

QueryStream::QueryStream(std::shared_ptr<internal::Stream> stream) : stream_(std::move(stream)) {}

QueryStream::~QueryStream() {
  if (stream_) stream_->Close();
}

Result<v1::QueryResponse> QueryStream::Query(v1::QueryRequest request) { return QueryAsync(std::move(request)).get(); }

std::future<Result<v1::QueryResponse>> QueryStream::QueryAsync(v1::QueryRequest request) {
  auto promise = std::make_shared<std::promise<Result<v1::QueryResponse>>>();
  auto future = promise->get_future();
  QueryAsync(std::move(request), [promise](Result<v1::QueryResponse> r) { promise->set_value(std::move(r)); });
  return future;
}

void QueryStream::QueryAsync(v1::QueryRequest request, std::function<void(Result<v1::QueryResponse>)> done) {
  stream_->Query(std::move(request), std::move(done));
}

}  // namespace clipper::client
