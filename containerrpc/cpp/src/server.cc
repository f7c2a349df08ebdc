// SPDX-License-Identifier: Apache-2.0
#include "server.h"

#include <algorithm>
#include <utility>

#include <grpc/grpc.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "clipper/v1/model_container_service.pb.h"
#include "errors.h"
#include "secure.h"

namespace clipper::internal {
namespace {

using Clock = std::chrono::steady_clock;

// A prediction that takes longer than this is worth a thread for the network meanwhile.
constexpr double kSlowSeconds = 200e-6;
// How long a prediction that was expected to be quick may go on before that thread comes.
constexpr std::chrono::milliseconds kTick{10};
// How long calls that do not end by themselves may hold the end of the server up.
constexpr std::chrono::milliseconds kFarewell{1000};
// Of flow control: a whole batch of the usual size fits, and comes in one piece.
constexpr int kWindowBytes = 16 << 20;
constexpr int kFrameBytes = (16 << 20) - 1;

constexpr char kService[] = "clipper.v1.ModelContainerService";
// grpc.health.v1.HealthCheckResponse.ServingStatus
constexpr int kServing = 1, kNotServing = 2, kServiceUnknown = 3;

grpc::ByteBuffer Buffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return {&slice, 1};
}

// The message grpc.health.v1.HealthCheckResponse.
grpc::ByteBuffer HealthMessage(int status) { return Buffer({'\x08', static_cast<char>(status)}); }

// Removes the socket file that a container which was killed has left; throws when another one still
// serves on it, or when the file is none.
void ReleaseSocket(const std::string& address) {
  if (address.rfind("unix:", 0) != 0) return;
  const std::string path = address.substr(5);
  const std::string cannot = "cannot serve on " + address + ": ";
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return;
  if (!S_ISSOCK(status.st_mode)) throw std::runtime_error(cannot + "the file exists and is not a socket");
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  if (path.size() >= sizeof(to.sun_path)) throw std::runtime_error(cannot + "the path is too long for a socket");
  path.copy(to.sun_path, path.size());
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool refused = connect(probe, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0;
  const int error = errno;
  close(probe);
  if (!refused) throw std::runtime_error(cannot + "another process serves on it");
  if (error != ECONNREFUSED) throw std::runtime_error(cannot + std::generic_category().message(error));
  unlink(path.c_str());
}

// What the completion queue returns.
struct Event {
  virtual void Done(bool ok) = 0;

 protected:
  ~Event() = default;
};

// The server's side of a call.
struct Transport {
  grpc::GenericServerContext context;
  grpc::GenericServerAsyncReaderWriter stream{&context};
};

}  // namespace

// An operation of a call, which the completion queue will report; it keeps the call until then.
class Operation final : public Event {
 public:
  using Handler = void (Call::*)(std::unique_lock<std::mutex>& lock, bool ok);
  explicit Operation(Handler handler) : handler_(handler) {}

  void* Begin(std::shared_ptr<Call> call) {
    call_ = std::move(call);
    begun_.store(true, std::memory_order_release);
    return tag();
  }
  void* tag() { return static_cast<Event*>(this); }
  void Done(bool ok) override;

 private:
  Handler handler_;
  std::shared_ptr<Call> call_;
  // Another thread may have begun it. The completion queue orders the two, as this does for a sanitizer.
  std::atomic<bool> begun_{false};
};

// Waits for a call.
struct Server::Accept final : Event {
  explicit Accept(Server& server);
  void Done(bool ok) override;

  Server& server;
  std::unique_ptr<Transport> transport = std::make_unique<Transport>();
  std::unique_ptr<Operation> ended;
};

// A call of any method. All that is virtual is called with the lock held.
class Call : public std::enable_shared_from_this<Call> {
 public:
  Call(Server& server, Server::Accept& accepted) : server_(server), transport_(std::move(accepted.transport)), ended_(std::move(accepted.ended)) {
    std::lock_guard lock(server_.calls_mu_);
    server_.calls_++;
  }
  virtual ~Call() {
    transport_ = nullptr;
    std::lock_guard lock(server_.calls_mu_);
    server_.calls_--;
    server_.calls_changed_.notify_all();
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  void Begin() {
    std::lock_guard lock(mu_);
    ended_->Begin(shared_from_this());
    Started();
  }

 protected:
  friend class Operation;
  friend struct Server::Accept;

  virtual void Started() { Read(); }
  virtual void ReadDone(std::unique_lock<std::mutex>& lock, bool ok) = 0;
  virtual void WriteDone(std::unique_lock<std::mutex>&, bool) {}
  virtual void Finished(std::unique_lock<std::mutex>&, bool) {}
  // The caller has gone before the call was finished.
  virtual void Cancelled() {}
  void Ended(std::unique_lock<std::mutex>&, bool) {
    if (transport_->context.IsCancelled()) Cancelled();
  }

  void Read() { transport_->stream.Read(&received_, read_.Begin(shared_from_this())); }
  void Write(const grpc::ByteBuffer& bytes) { transport_->stream.Write(bytes, write_.Begin(shared_from_this())); }
  void Finish(const grpc::Status& status) { transport_->stream.Finish(status, finish_.Begin(shared_from_this())); }

  Server& server_;
  std::mutex mu_;
  std::unique_ptr<Transport> transport_;
  grpc::ByteBuffer received_;
  Operation read_{&Call::ReadDone}, write_{&Call::WriteDone}, finish_{&Call::Finished};
  std::unique_ptr<Operation> ended_;
};

void Operation::Done(bool ok) {
  if (!begun_.load(std::memory_order_acquire)) return;  // the end of a call that was not dispatched
  const std::shared_ptr<Call> call = std::move(call_);
  std::unique_lock lock(call->mu_);
  (call.get()->*handler_)(lock, ok);
}

// A stream of batches.
class PredictCall final : public Call {
 public:
  using Call::Call;
  ~PredictCall() override {
    std::lock_guard lock(server_.calls_mu_);
    server_.streams_.erase(this);
  }

  // Whether nobody waits for answers any more.
  bool Abandoned() {
    std::lock_guard lock(mu_);
    return abandoned_;
  }

  // Answers a batch that was taken.
  void Answer(grpc::ByteBuffer bytes) {
    std::lock_guard lock(mu_);
    answers_.push_back(std::move(bytes));
    Advance();
  }

  // Lets go of a batch that nobody waits for.
  void Drop() {
    std::lock_guard lock(mu_);
    Left(1);
    Advance();
  }

  void Drain() {
    std::lock_guard lock(mu_);
    closed_ = true;
    Advance();
  }

 private:
  void Started() override {
    {
      std::lock_guard lock(server_.calls_mu_);
      server_.streams_.insert(this);
    }
    end_ = server_.Refusal();
    closed_ = !end_.ok();
    Advance();
  }

  void ReadDone(std::unique_lock<std::mutex>& lock, bool ok) override {
    reading_ = false;
    if (!ok || closed_) {
      closed_ = true;
      Advance();
      return;
    }
    grpc::ByteBuffer bytes;
    bytes.Swap(&received_);
    in_flight_++;
    server_.metrics_.Taken();
    Advance();  // The next one is received meanwhile.
    lock.unlock();
    Take(bytes);
    lock.lock();
  }

  void WriteDone(std::unique_lock<std::mutex>&, bool ok) override {
    writing_ = false;
    Left(1);
    if (!ok) Cancelled();
    Advance();
  }

  void Cancelled() override {
    abandoned_ = closed_ = true;
    Left(answers_.size());
    answers_.clear();
    Advance();
  }

  void Finished(std::unique_lock<std::mutex>&, bool) override {
    std::lock_guard lock(server_.calls_mu_);
    server_.streams_.erase(this);
    server_.calls_changed_.notify_all();
  }

  void Take(const grpc::ByteBuffer& bytes) {
    const Options& options = *server_.options_.load();
    std::optional<Request> request = Decoder::Decode(bytes, options);
    if (!request.has_value()) {
      std::lock_guard lock(mu_);
      end_ = grpc::Status(grpc::INVALID_ARGUMENT, "the request is no clipper.v1.PredictRequest");
      closed_ = true;
      Left(1);
      Advance();
    } else if (request->error != nullptr) {
      server_.metrics_.Refused();
      Log(Level::kWarning, "batch refused", {{"rows", std::to_string(request->rows)}, {"error", Describe(request->error)}});
      Answer(Encoder::Encode(request->id, request->error, 0));
    } else {
      std::optional<Clock::time_point> deadline;
      constexpr std::uint64_t kYear = 365ull * 24 * 3600 * 1000 * 1000;
      if (request->timeout_micros != 0) deadline = Clock::now() + std::chrono::microseconds(std::min(request->timeout_micros, kYear));
      server_.Submit({std::static_pointer_cast<PredictCall>(shared_from_this()), *std::move(request), deadline});
    }
  }

  void Left(std::size_t batches) {
    in_flight_ -= batches;
    for (; batches > 0; batches--) server_.metrics_.Left();
  }

  // Starts what can be started.
  void Advance() {
    if (finishing_) return;
    if (!writing_ && !answers_.empty()) {
      writing_ = true;
      sending_.Swap(&answers_.front());
      answers_.pop_front();
      Write(sending_);
    }
    // A caller that sends more than it may is not read: what it sends stays with it.
    if (!closed_ && !reading_ && in_flight_ <= server_.options_.load()->parallel) {
      reading_ = true;
      Read();
    }
    if (closed_ && in_flight_ == 0) {
      finishing_ = true;
      Finish(end_);
    }
  }

  std::size_t in_flight_ = 0;  // batches that came and whose answers have not gone
  bool reading_ = false, writing_ = false, finishing_ = false;
  bool closed_ = false;  // no batch will be taken
  bool abandoned_ = false;
  grpc::Status end_;
  std::deque<grpc::ByteBuffer> answers_;
  grpc::ByteBuffer sending_;
};

// A call with one answer to one request.
class UnaryCall final : public Call {
 public:
  using Method = std::function<grpc::Status(const grpc::ByteBuffer& request, grpc::ByteBuffer* response)>;

  UnaryCall(Server& server, Server::Accept& accepted, Method method) : Call(server, accepted), method_(std::move(method)) {}

 private:
  void ReadDone(std::unique_lock<std::mutex>&, bool ok) override {
    const grpc::Status status = ok ? method_(received_, &response_) : grpc::Status(grpc::INVALID_ARGUMENT, "there is no request");
    if (status.ok()) {
      transport_->stream.WriteAndFinish(response_, {}, status, finish_.Begin(shared_from_this()));
    } else {
      Finish(status);
    }
  }

  Method method_;
  grpc::ByteBuffer response_;
};

// One who watches the health.
class WatchCall final : public Call {
 public:
  using Call::Call;
  ~WatchCall() override {
    std::lock_guard lock(server_.calls_mu_);
    server_.watches_.erase(this);
  }

  void Update() {
    std::lock_guard lock(mu_);
    Advance();
  }

 private:
  void ReadDone(std::unique_lock<std::mutex>&, bool ok) override {
    if (ok) service_ = FirstText(received_);
    if (service_.has_value()) {
      std::lock_guard lock(server_.calls_mu_);
      server_.watches_.insert(this);
    }
    Advance();
  }

  void WriteDone(std::unique_lock<std::mutex>&, bool) override {
    writing_ = false;
    Advance();
  }

  void Cancelled() override {
    gone_ = true;
    Advance();
  }

  void Advance() {
    if (finishing_ || writing_) return;
    if (gone_ || !service_.has_value()) {
      finishing_ = true;
      Finish(gone_ ? grpc::Status::CANCELLED : grpc::Status(grpc::INVALID_ARGUMENT, "the request is no grpc.health.v1.HealthCheckRequest"));
      return;
    }
    // Read first: what is sent after it was set is the last word.
    const bool last = server_.stopping_;
    const int status = server_.Health(*service_);
    if (status == sent_) {
      if (last) {
        finishing_ = true;
        Finish({grpc::UNAVAILABLE, "the container is about to stop"});
      }
      return;
    }
    sent_ = status;
    writing_ = true;
    message_ = HealthMessage(status);
    Write(message_);
  }

  std::optional<std::string> service_;
  bool writing_ = false, finishing_ = false, gone_ = false;
  int sent_ = 0;
  grpc::ByteBuffer message_;
};

Server::Accept::Accept(Server& server) : server(server), ended(std::make_unique<Operation>(&Call::Ended)) {
  transport->context.AsyncNotifyWhenDone(ended->tag());
  server.service_.RequestCall(&transport->context, &transport->stream, server.events_.get(), server.events_.get(), static_cast<Event*>(this));
}

void Server::Accept::Done(bool ok) {
  const std::unique_ptr<Accept> self(this);
  if (!ok) return;  // the server ends
  new Accept(server);
  const std::string method = transport->context.method();
  std::shared_ptr<Call> call;
  if (method == "/clipper.v1.ModelContainerService/Predict") {
    call = std::make_shared<PredictCall>(server, *this);
  } else if (method == "/grpc.health.v1.Health/Watch") {
    call = std::make_shared<WatchCall>(server, *this);
  } else {
    call = std::make_shared<UnaryCall>(server, *this, [&server = server, method](const grpc::ByteBuffer& request, grpc::ByteBuffer* response) {
      return server.Answer(method, request, response);
    });
  }
  call->Begin();
}

Server::Server(const Settings& settings, Loader loader, Metrics& metrics) : settings_(settings), loader_(std::move(loader)), metrics_(metrics) {}

Server::~Server() = default;

std::string Server::Listen() {
  ReleaseSocket(settings_.address);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(settings_.address, ServerSecurity(settings_), &port);
  builder.SetMaxReceiveMessageSize(settings_.max_message_bytes);
  builder.SetMaxSendMessageSize(-1);
  // A second container on the same port is a mistake, not a way to share the work.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kWindowBytes);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kFrameBytes);
  builder.RegisterAsyncGenericService(&service_);
  events_ = builder.AddCompletionQueue();
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port == 0) {
    throw std::runtime_error("cannot serve on " + settings_.address + ": the address is in use, or is none of this machine");
  }
  new Accept(*this);
  if (settings_.address.rfind("unix:", 0) == 0) return settings_.address;
  return settings_.address.substr(0, settings_.address.rfind(':') + 1) + std::to_string(port);
}

void Server::Load(std::function<void(const Options&)> ready, std::function<void(std::exception_ptr)> failed) {
  loading_ = true;
  threads_.emplace_back([this] { Relieve(); });
  threads_.emplace_back([this, ready = std::move(ready), failed = std::move(failed)] { RunModel(ready, failed); });
}

void Server::Drain() {
  stopping_ = true;
  HealthChanged();
  std::vector<std::shared_ptr<Call>> streams;
  std::unique_lock lock(calls_mu_);
  for (PredictCall* stream : streams_) streams.push_back(stream->weak_from_this().lock());
  lock.unlock();
  for (const std::shared_ptr<Call>& stream : streams) {
    if (stream != nullptr) static_cast<PredictCall*>(stream.get())->Drain();
  }
  streams.clear();
  lock.lock();
  calls_changed_.wait(lock, [this] { return streams_.empty(); });
}

bool Server::Shutdown() {
  if (threads_.empty()) threads_.emplace_back([this] { Relieve(); });
  server_->Shutdown(std::chrono::system_clock::now() + kFarewell);
  {
    // No operation may begin on a queue that has ended.
    std::unique_lock lock(calls_mu_);
    calls_changed_.wait(lock, [this] { return calls_ == 0; });
  }
  events_->Shutdown();
  {
    std::lock_guard lock(work_mu_);
    if (loading_) return false;
  }
  for (std::thread& thread : threads_) thread.join();
  return true;
}

void Server::RunModel(const std::function<void(const Options&)>& ready, const std::function<void(std::exception_ptr)>& failed) {
  try {
    model_ = loader_.load(settings_.model_path);
  } catch (...) {
    {
      std::lock_guard lock(work_mu_);
      loading_ = false;
    }
    failed(std::current_exception());
    return;
  }
  declared_ = *model_;
  options_ = &declared_;
  std::vector<std::thread> others;
  for (std::uint32_t i = 1; i < declared_.parallel; i++) others.emplace_back([this] { Work(); });
  {
    std::lock_guard lock(work_mu_);
    loading_ = false;
    relieve_ = declared_.parallel > 1;
  }
  HealthChanged();
  ready(declared_);
  Work();
  for (std::thread& other : others) other.join();
  model_ = nullptr;
}

void Server::Work() {
  std::unique_lock lock(work_mu_);
  for (;;) {
    if (!queue_.empty()) {
      Job job = std::move(queue_.front());
      queue_.pop_front();
      working_++;
      batches_++;
      if (!polling_ && (relieve_ || dormant_)) relief_.notify_one();
      lock.unlock();
      const double seconds = std::chrono::duration<double>(Run(job)).count();
      job = {};
      lock.lock();
      working_--;
      average_seconds_ += (seconds - average_seconds_) / 8;
      relieve_ = declared_.parallel > 1 || average_seconds_ > kSlowSeconds;
    } else if (ended_) {
      return;
    } else if (!polling_ && !relieve_) {
      polling_ = true;
      lock.unlock();
      PollOnce();
      lock.lock();
      polling_ = false;
    } else {
      if (!polling_) relief_.notify_one();
      waiting_++;
      work_.wait(lock);
      waiting_--;
    }
  }
}

void Server::Relieve() {
  std::unique_lock lock(work_mu_);
  std::uint64_t seen = 0;
  while (!ended_) {
    const bool same = batches_ == seen;
    seen = batches_;
    if (!polling_ && (relieve_ || (working_ > 0 && same))) {
      polling_ = true;
      do {
        lock.unlock();
        PollOnce();
        lock.lock();
      } while (!ended_ && (relieve_ || waiting_ == 0));
      polling_ = false;
      work_.notify_one();
    } else if (working_ == 0 && same) {
      dormant_ = true;
      relief_.wait(lock);
      dormant_ = false;
    } else {
      relief_.wait_for(lock, kTick);
    }
  }
}

void Server::PollOnce() {
  void* tag = nullptr;
  bool ok = false;
  if (events_->Next(&tag, &ok)) {
    static_cast<Event*>(tag)->Done(ok);
    return;
  }
  std::lock_guard lock(work_mu_);
  ended_ = true;
  work_.notify_all();
  relief_.notify_all();
}

void Server::Submit(Job job) {
  std::lock_guard lock(work_mu_);
  queue_.push_back(std::move(job));
  if (waiting_ > 0) work_.notify_one();
}

std::chrono::nanoseconds Server::Run(Job& job) {
  if (job.call->Abandoned()) {
    job.call->Drop();
    return {};
  }
  const std::size_t rows = job.request.rows;
  const Clock::time_point start = Clock::now();
  std::chrono::nanoseconds took{};
  const auto micros = [&] { return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(took).count()); };
  grpc::ByteBuffer answer;
  try {
    if (job.deadline.has_value() && start > *job.deadline) {
      throw BatchError(grpc::DEADLINE_EXCEEDED, v1::ERROR_REASON_DEADLINE, "the batch's time was over before its turn came");
    }
    Result result(rows);
    try {
      model_->Predict(job.request.batch, result);
    } catch (...) {
      took = Clock::now() - start;
      throw;
    }
    took = Clock::now() - start;
    const std::size_t failed = Encoder::Failed(result);
    answer = Encoder::Encode(job.request.id, std::move(result), micros());
    metrics_.Predicted(rows, failed, took);
  } catch (...) {
    const std::exception_ptr error = std::current_exception();
    const v1::Error message = ToMessage(error);
    const bool refused = message.code() == grpc::INVALID_ARGUMENT || message.code() == grpc::DEADLINE_EXCEEDED;
    refused ? metrics_.Refused() : metrics_.Failed(rows, took);
    Log(refused ? Level::kWarning : Level::kError, refused ? "batch refused" : "model failed", {{"rows", std::to_string(rows)}, {"error", message.message()}});
    answer = Encoder::Encode(job.request.id, error, micros());
  }
  job.call->Answer(std::move(answer));
  return took;
}

grpc::Status Server::Refusal() const {
  if (options_.load() == nullptr) return {grpc::UNAVAILABLE, "the model is being loaded"};
  if (stopping_) return {grpc::UNAVAILABLE, "the container is about to stop"};
  return grpc::Status::OK;
}

grpc::Status Server::Answer(const std::string& method, const grpc::ByteBuffer& request, grpc::ByteBuffer* response) const {
  if (method == "/clipper.v1.ModelContainerService/Describe") return Describe(response);
  if (method != "/grpc.health.v1.Health/Check") return {grpc::UNIMPLEMENTED, "the container has no method " + method};
  const std::optional<std::string> service = FirstText(request);
  if (!service.has_value()) return {grpc::INVALID_ARGUMENT, "the request is no grpc.health.v1.HealthCheckRequest"};
  const int status = Health(*service);
  if (status == kServiceUnknown) return {grpc::NOT_FOUND, "the container has no service of this name"};
  *response = HealthMessage(status);
  return grpc::Status::OK;
}

grpc::Status Server::Describe(grpc::ByteBuffer* response) const {
  if (grpc::Status refusal = Refusal(); !refusal.ok()) return refusal;
  v1::DescribeResponse description;
  description.set_model(settings_.model_name);
  description.set_version(settings_.model_version);
  const auto add = [](const Spec& spec, v1::TensorSpec* to) {
    to->set_name(spec.name);
    to->set_data_type(static_cast<v1::DataType>(spec.type));
    to->mutable_shape()->Add(spec.shape.begin(), spec.shape.end());
    to->set_any_shape(spec.any_shape);
  };
  for (const Spec& spec : declared_.inputs) add(spec, description.mutable_signature()->add_inputs());
  for (const Spec& spec : declared_.outputs) add(spec, description.mutable_signature()->add_outputs());
  description.set_max_batch_rows(declared_.max_batch_rows);
  description.set_max_message_bytes(static_cast<std::uint64_t>(settings_.max_message_bytes));
  description.set_max_in_flight(declared_.parallel + 1);
  for (const auto& [name, value] : declared_.properties) (*description.mutable_properties())[name] = value;
  *response = Buffer(description.SerializeAsString());
  return grpc::Status::OK;
}

int Server::Health(const std::string& service) const {
  if (!service.empty() && service != kService) return kServiceUnknown;
  return Refusal().ok() ? kServing : kNotServing;
}

void Server::HealthChanged() {
  metrics_.SetReady(Refusal().ok());
  std::vector<std::shared_ptr<Call>> watches;
  {
    std::lock_guard lock(calls_mu_);
    for (WatchCall* watch : watches_) watches.push_back(watch->weak_from_this().lock());
  }
  for (const std::shared_ptr<Call>& watch : watches) {
    if (watch != nullptr) static_cast<WatchCall*>(watch.get())->Update();
  }
}

}  // namespace clipper::internal
