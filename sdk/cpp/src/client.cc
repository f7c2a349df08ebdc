// SPDX-License-Identifier: Apache-2.0
#include "clipper/client.h"

#include <grpcpp/alarm.h>

#include <algorithm>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>

#include "connection.h"
#include "status.h"
#include "stream.h"

namespace clipper::client {
namespace internal {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::system_clock;  // as gRPC wants deadlines

constexpr int kMaxMessage = 64 << 20;
// How much longer a query may take than its timeout, so that the default output, which the server gives at that time,
// arrives.
constexpr milliseconds kAnswerGrace(1000);
// The wait before the first repetition; it doubles each time, up to the second.
constexpr milliseconds kFirstDelay(50), kMaxDelay(1000);
// A server cancels a call at its deadline, which may be seen here this much before it.
constexpr milliseconds kDeadlineSlack(100);
// How often a version is looked at until it is ready.
constexpr milliseconds kReadyPoll(100);

bool Secure(const Options& o) { return o.tls || !o.ca_file.empty() || !o.cert_file.empty() || !o.key_file.empty(); }

// Whether an address is of this machine, so that nothing leaves it.
bool IsLocal(const std::string& address) {
  if (address.rfind("unix:", 0) == 0) return true;
  const std::string host = address.substr(0, address.rfind(':'));
  if (host == "localhost" || host == "[::1]") return true;
  // Four numbers, of which the first is 127: a name that begins so is another machine's.
  return host.rfind("127.", 0) == 0 && std::count(host.begin(), host.end(), '.') == 3 &&
         host.find_first_not_of("0123456789.") == std::string::npos;
}

// Reads a file; nothing when it has no name.
std::optional<Error> Read(const char* option, const std::string& path, std::string& text) {
  if (path.empty()) return std::nullopt;
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  if (!file || !(out << file.rdbuf())) return Invalid(std::string(option) + " " + path + " cannot be read");
  text = out.str();
  return std::nullopt;
}

Result<std::shared_ptr<grpc::ChannelCredentials>> CredentialsOf(const Options& o) {
  if (!Secure(o)) return grpc::InsecureChannelCredentials();
  if (o.cert_file.empty() != o.key_file.empty()) return Invalid("cert_file and key_file belong together");
  grpc::SslCredentialsOptions ssl;
  if (auto error = Read("ca_file", o.ca_file, ssl.pem_root_certs)) return *error;
  if (auto error = Read("cert_file", o.cert_file, ssl.pem_cert_chain)) return *error;
  if (auto error = Read("key_file", o.key_file, ssl.pem_private_key)) return *error;
  return grpc::SslCredentials(ssl);
}

std::shared_ptr<grpc::Channel> Connect(const std::string& address, const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
  grpc::ChannelArguments arguments;
  arguments.SetUserAgentPrefix("clipper-cpp/" CLIPPER_VERSION);
  arguments.SetMaxReceiveMessageSize(kMaxMessage);
  arguments.SetMaxSendMessageSize(kMaxMessage);
  // A connection with calls under way is probed after 30 s of silence.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // A server that was restarted is found again within a second.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

template <typename T>
const T* As(const Message& message) {
  return message.GetDescriptor() == T::descriptor() ? static_cast<const T*>(&message) : nullptr;
}

// The time within which a query wants its answer; 0 when it does not say.
milliseconds TimeoutOf(const Message& request) {
  google::protobuf::Duration timeout;
  if (auto* query = As<v1::QueryRequest>(request)) timeout = query->timeout();
  if (auto* batch = As<v1::QueryBatchRequest>(request)) timeout = batch->timeout();
  return std::chrono::seconds(timeout.seconds()) + milliseconds(timeout.nanos() / 1'000'000);
}

bool CountsOnce(const v1::FeedbackRequest& r) { return !r.feedback_id().empty() || !r.id().empty(); }

// Whether a call that may have been carried out can be made again.
bool IsSafe(std::string_view method, const Message& request) {
  if (As<v1::QueryRequest>(request) || As<v1::QueryBatchRequest>(request)) return true;
  if (auto* feedback = As<v1::FeedbackRequest>(request)) return CountsOnce(*feedback);
  if (auto* batch = As<v1::FeedbackBatchRequest>(request)) {
    return std::all_of(batch->items().begin(), batch->items().end(), CountsOnce);
  }
  const std::string_view name = method.substr(method.rfind('/') + 1);
  for (std::string_view read : {"Get", "List", "Explain"}) {
    if (name.substr(0, read.size()) == read) return true;
  }
  return false;
}

// How long to wait after an attempt: between half and all of a time that doubles, so that clients do not come back
// together.
milliseconds Delay(int attempt) {
  thread_local std::minstd_rand random(std::random_device{}());
  const milliseconds all = std::min(kFirstDelay * (1 << std::min(attempt - 1, 10)), kMaxDelay);
  return milliseconds(std::uniform_int_distribution<milliseconds::rep>(all.count() / 2, all.count())(random));
}

// A call with its repetitions. It owns itself until it is done.
class UnaryCall {
 public:
  UnaryCall(std::shared_ptr<Connection> connection, const char* method, std::shared_ptr<const Message> request,
            std::shared_ptr<Message> response, std::function<void(std::optional<Error>)> done)
      : connection_(std::move(connection)),
        method_(method),
        request_(std::move(request)),
        response_(std::move(response)),
        done_(std::move(done)),
        safe_(IsSafe(method, *request_)) {
    const milliseconds own = TimeoutOf(*request_);
    end_ = Clock::now() + (own.count() > 0 ? own + kAnswerGrace : connection_->options().timeout);
  }

  // Nothing may follow: the call may be over, and gone, before this returns.
  void Make() {
    ++attempt_;
    begin_ = std::chrono::steady_clock::now();
    context_ = std::make_unique<grpc::ClientContext>();
    context_->set_deadline(end_);
    connection_->Prepare(method_, *context_);
    connection_->StubOf(method_).UnaryCall(context_.get(), method_, {}, request_.get(), response_.get(),
                                           [this](grpc::Status status) { Answered(status); });
  }

 private:
  void Answered(const grpc::Status& status) {
    std::optional<Error> error;
    if (!status.ok()) error = ErrorOf(status);
    // Nobody but the deadline has cancelled it.
    if (error && error->code == Code::kCancelled && error->reason.empty() && Clock::now() + kDeadlineSlack >= end_) {
      error = Error{Code::kDeadlineExceeded, reason::kDeadline, "the client's deadline has passed", {}, {}};
    }
    milliseconds pause(0);
    bool repeated = error && error->code == Code::kUnavailable && safe_ && attempt_ < connection_->options().attempts;
    if (repeated) {
      pause = std::max(Delay(attempt_), error->retry_after.value_or(milliseconds(0)));
      repeated = Clock::now() + pause < end_;
    }
    if (connection_->options().observer) {
      connection_->options().observer({method_, attempt_, std::chrono::steady_clock::now() - begin_, error ? &*error : nullptr, repeated});
    }
    if (repeated) {
      alarm_ = std::make_unique<grpc::Alarm>();
      alarm_->Set(Clock::now() + pause, [this](bool) { Make(); });
      return;
    }
    done_(std::move(error));
    delete this;
  }

  const std::shared_ptr<Connection> connection_;
  const char* const method_;
  const std::shared_ptr<const Message> request_;
  const std::shared_ptr<Message> response_;
  const std::function<void(std::optional<Error>)> done_;
  const bool safe_;
  Clock::time_point end_;
  int attempt_ = 0;
  std::chrono::steady_clock::time_point begin_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::Alarm> alarm_;
};

}  // namespace

Stub& Connection::StubOf(std::string_view method) {
  const bool query = method.find(".QueryService/") != method.npos || method.find(".FeedbackService/") != method.npos;
  return query ? query_ : admin_;
}

void Connection::Prepare(std::string_view method, grpc::ClientContext& context) const {
  if (!options_.api_key.empty()) context.AddMetadata("authorization", "Bearer " + options_.api_key);
  if (!options_.metadata) return;
  std::multimap<std::string, std::string> metadata;
  options_.metadata(method, metadata);
  for (const auto& [key, value] : metadata) context.AddMetadata(key, value);
}

}  // namespace internal

Result<Client> Client::Make(Options options) {
  if (options.timeout.count() <= 0 || options.attempts < 1) return internal::Invalid("timeout must be above 0, and attempts at least 1");
  for (const std::string& address : {options.address, options.admin_address}) {
    if (!options.api_key.empty() && !internal::Secure(options) && !internal::IsLocal(address)) {
      return internal::Invalid("the API key would be sent to " + address + " without TLS, for all to read: set ca_file or tls");
    }
  }
  auto credentials = internal::CredentialsOf(options);
  if (!credentials) return credentials.error();
  auto query = internal::Connect(options.address, *credentials);
  auto admin = internal::Connect(options.admin_address, *credentials);
  return Client(std::make_shared<internal::Connection>(std::move(options), std::move(query), std::move(admin)));
}

void Client::Start(const char* method, std::shared_ptr<const Message> request, std::shared_ptr<Message> response,
                   std::function<void(std::optional<Error>)> done) const {
  (new internal::UnaryCall(connection_, method, std::move(request), std::move(response), std::move(done)))->Make();
}

Result<std::vector<v1::Application>> Client::AllApplications(std::uint32_t page_size) const {
  std::vector<v1::Application> all;
  v1::ListApplicationsRequest request;
  request.set_page_size(page_size);
  do {
    auto page = ListApplications(request);
    if (!page) return page.error();
    all.insert(all.end(), page->applications().begin(), page->applications().end());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return all;
}

Result<std::vector<v1::Model>> Client::AllModels(std::uint32_t page_size) const {
  std::vector<v1::Model> all;
  v1::ListModelsRequest request;
  request.set_page_size(page_size);
  do {
    auto page = ListModels(request);
    if (!page) return page.error();
    all.insert(all.end(), page->models().begin(), page->models().end());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return all;
}

Result<v1::ModelVersion> Client::Deploy(v1::DeployModelRequest request, std::chrono::milliseconds limit) const {
  auto deployed = DeployModel(std::move(request));
  if (!deployed) return deployed.error();
  return WaitModelReady(deployed->version().model(), deployed->version().version(), limit);
}

Result<v1::ModelVersion> Client::WaitModelReady(const std::string& model, const std::string& version, std::chrono::milliseconds limit) const {
  const auto end = std::chrono::steady_clock::now() + limit;
  v1::GetModelVersionRequest request;
  request.set_model(model);
  request.set_version(version);
  for (;;) {
    auto have = GetModelVersion(request);
    if (!have) return have.error();
    const v1::ModelVersion& v = have->version();
    switch (v.state()) {
      case v1::MODEL_STATE_READY:
      case v1::MODEL_STATE_STOPPED:
        return v;
      case v1::MODEL_STATE_FAILED:
        return Error{Code::kFailedPrecondition, reason::kLaunchFailed, model + " " + version + " cannot serve: " + v.state_message(), {}, {}};
      default:
        break;
    }
    if (std::chrono::steady_clock::now() + internal::kReadyPoll >= end) {
      return Error{Code::kDeadlineExceeded, reason::kDeadline, model + " " + version + " is not ready: " + v.state_message(), {}, {}};
    }
    std::this_thread::sleep_for(internal::kReadyPoll);
  }
}

QueryStream Client::OpenStream() const { return QueryStream(internal::Stream::Open(connection_)); }

std::optional<Error> Client::ReadLogs(const v1::ReadLogsRequest& request, const std::function<bool(const v1::ReadLogsResponse&)>& each) const {
  v1::ReadLogsResponse message;
  return internal::ReadEach(*connection_, "/clipper.v1.ModelService/ReadLogs", request, message, [&] { return each(message); });
}

std::optional<Error> Client::ExportSelectionState(const v1::ExportSelectionStateRequest& request,
                                                  const std::function<bool(const v1::ExportSelectionStateResponse&)>& each) const {
  v1::ExportSelectionStateResponse message;
  return internal::ReadEach(*connection_, "/clipper.v1.ApplicationService/ExportSelectionState", request, message,
                            [&] { return each(message); });
}

google::protobuf::Value Truth(double truth) {
  google::protobuf::Value value;
  value.set_number_value(truth);
  return value;
}

google::protobuf::Value Truth(std::string truth) {
  google::protobuf::Value value;
  value.set_string_value(std::move(truth));
  return value;
}

}  // namespace clipper::client
