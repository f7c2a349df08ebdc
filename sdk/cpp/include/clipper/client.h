// SPDX-License-Identifier: Apache-2.0
// The client of Clipper, an online prediction server.
//
//   auto client = clipper::client::Client::Make({});
//   clipper::v1::QueryRequest request;
//   request.set_application("digits");
//   *request.add_inputs() = clipper::client::MakeTensor<double>({0.1, 0.2});
//   auto answer = client->Query(request);
//   if (!answer) return Fail(answer.error());
//   auto label = clipper::client::Value<std::int64_t>(answer->outputs(0));
#ifndef CLIPPER_CLIENT_H_
#define CLIPPER_CLIENT_H_

#include <chrono>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "clipper/client/error.h"
#include "clipper/client/tensor.h"
#include "clipper/v1/application_service.pb.h"
#include "clipper/v1/feedback_service.pb.h"
#include "clipper/v1/model_service.pb.h"
#include "clipper/v1/query_service.pb.h"

namespace clipper::client {

// One attempt of a call, for logs, metrics and traces.
struct Attempt {
  std::string_view method;  // "/clipper.v1.QueryService/Query"
  int number;               // from 1
  std::chrono::nanoseconds duration;
  const Error* error;  // null when it succeeded
  bool repeated;       // whether another one follows
};

// How a client reaches Clipper. The default is a Clipper on this machine.
struct Options {
  // Where queries and feedback, and where administration go: "host:port" or "unix:/path".
  std::string address = "127.0.0.1:1347";
  std::string admin_address = "127.0.0.1:1348";
  // Turns TLS on, with the system's authorities unless ca_file names others. The files below do so too.
  bool tls = false;
  // Certificates (PEM) of the authorities that may have signed the server's.
  std::string ca_file;
  // The client's own certificate and key (PEM), for mutual TLS.
  std::string cert_file, key_file;
  // An API key or a JWT, sent with every call. Without TLS it is sent on this machine only.
  std::string api_key;
  // Bounds a call; a query with a timeout of its own is given one second more than that instead. Streams are not
  // bounded.
  std::chrono::milliseconds timeout = std::chrono::seconds(30);
  // How often a call that is safe to repeat is made at most, when Clipper cannot be reached (UNAVAILABLE): queries,
  // reads, and feedback with a feedback_id or an id. 1 repeats nothing.
  int attempts = 4;
  // Called before each attempt: what it adds is sent as metadata, such as the context of a trace.
  std::function<void(std::string_view method, std::multimap<std::string, std::string>& metadata)> metadata;
  // Called after each attempt, from any thread.
  std::function<void(const Attempt&)> observer;
};

namespace internal {
class Connection;
class Stream;
}  // namespace internal

// Asks over one stream, which costs less than a call each. Any number of threads may ask at once, and each gets its
// own answer. It lasts until it is destroyed, or an error of the stream itself; a broken stream is not opened again,
// a new one is.
class QueryStream {
 public:
  QueryStream(QueryStream&&) = default;
  QueryStream& operator=(QueryStream&&) = delete;
  ~QueryStream();  // queries without an answer fail

  // Asks and waits for the answer. The time that the query gives itself, and the application's objective, hold as in
  // a call of its own.
  Result<v1::QueryResponse> Query(v1::QueryRequest request);
  std::future<Result<v1::QueryResponse>> QueryAsync(v1::QueryRequest request);
  // done is called once, from any thread, and must not block.
  void QueryAsync(v1::QueryRequest request, std::function<void(Result<v1::QueryResponse>)> done);

 private:
  friend class Client;
  explicit QueryStream(std::shared_ptr<internal::Stream> stream);
  std::shared_ptr<internal::Stream> stream_;
};

// A connection to Clipper. Cheap to copy, safe for any number of threads; make one and keep it.
class Client {
 public:
  // A client. It connects at the first call; an error means that the options cannot be used.
  static Result<Client> Make(Options options);

// Each call has three forms: one that waits, one with a future, and one that calls back, once and from any thread;
// what is called back must not block. A call goes on to its end when the client is destroyed.
#define CLIPPER_CALL(SERVICE, NAME)                                                                                   \
  Result<v1::NAME##Response> NAME(v1::NAME##Request request) const { return NAME##Async(std::move(request)).get(); }  \
  std::future<Result<v1::NAME##Response>> NAME##Async(v1::NAME##Request request) const {                              \
    auto promise = std::make_shared<std::promise<Result<v1::NAME##Response>>>();                                      \
    auto future = promise->get_future();                                                                              \
    NAME##Async(std::move(request), [promise](Result<v1::NAME##Response> r) { promise->set_value(std::move(r)); });   \
    return future;                                                                                                    \
  }                                                                                                                   \
  void NAME##Async(v1::NAME##Request request, std::function<void(Result<v1::NAME##Response>)> done) const {           \
    Call("/clipper.v1." SERVICE "/" #NAME, std::move(request), std::move(done));                                      \
  }

  // One query, answered within the application's latency objective; many, each with its own answer or error
  // (ItemResult).
  CLIPPER_CALL("QueryService", Query)
  CLIPPER_CALL("QueryService", QueryBatch)

  // The truth, or a reward, for an earlier query; the same for many (ItemResult).
  CLIPPER_CALL("FeedbackService", Feedback)
  CLIPPER_CALL("FeedbackService", FeedbackBatch)

  // Administration of applications.
  CLIPPER_CALL("ApplicationService", CreateApplication)
  CLIPPER_CALL("ApplicationService", GetApplication)
  CLIPPER_CALL("ApplicationService", ListApplications)
  CLIPPER_CALL("ApplicationService", UpdateApplication)
  CLIPPER_CALL("ApplicationService", DeleteApplication)
  CLIPPER_CALL("ApplicationService", GetSelectionState)
  CLIPPER_CALL("ApplicationService", ExplainSelection)
  CLIPPER_CALL("ApplicationService", ListContexts)
  CLIPPER_CALL("ApplicationService", ResetSelectionState)
  CLIPPER_CALL("ApplicationService", GetModelCorrelations)
  CLIPPER_CALL("ApplicationService", GetCanary)

  // Administration of models. DeployModel returns at once; Deploy waits.
  CLIPPER_CALL("ModelService", DeployModel)
  CLIPPER_CALL("ModelService", GetModel)
  CLIPPER_CALL("ModelService", ListModels)
  CLIPPER_CALL("ModelService", GetModelVersion)
  CLIPPER_CALL("ModelService", UpdateModelVersion)
  CLIPPER_CALL("ModelService", SetCurrentVersion)
  CLIPPER_CALL("ModelService", DeleteModelVersion)
  CLIPPER_CALL("ModelService", DeleteModel)
  CLIPPER_CALL("ModelService", GetBatching)
  CLIPPER_CALL("ModelService", GetModelRepository)
#undef CLIPPER_CALL

  // All applications and all models, sorted by name, read page by page.
  Result<std::vector<v1::Application>> AllApplications(std::uint32_t page_size = 0) const;
  Result<std::vector<v1::Model>> AllModels(std::uint32_t page_size = 0) const;

  // Deploys a version of a model and waits until it can be queried.
  Result<v1::ModelVersion> Deploy(v1::DeployModelRequest request, std::chrono::milliseconds limit) const;
  // Waits until every replica that a version wants can be queried, or the time is over. A version that cannot serve
  // is an error that says why.
  Result<v1::ModelVersion> WaitModelReady(const std::string& model, const std::string& version, std::chrono::milliseconds limit) const;

  QueryStream OpenStream() const;

  // Calls that answer with many messages: each is given each, until it returns false or they end. Not bounded in
  // time. Returns the error, if any.
  std::optional<Error> ReadLogs(const v1::ReadLogsRequest& request, const std::function<bool(const v1::ReadLogsResponse&)>& each) const;
  std::optional<Error> ExportSelectionState(const v1::ExportSelectionStateRequest& request,
                                            const std::function<bool(const v1::ExportSelectionStateResponse&)>& each) const;

 private:
  explicit Client(std::shared_ptr<internal::Connection> connection) : connection_(std::move(connection)) {}

  using Message = google::protobuf::Message;
  void Start(const char* method, std::shared_ptr<const Message> request, std::shared_ptr<Message> response,
             std::function<void(std::optional<Error>)> done) const;

  template <typename Request, typename Response>
  void Call(const char* method, Request request, std::function<void(Result<Response>)> done) const {
    auto response = std::make_shared<Response>();
    Start(method, std::make_shared<const Request>(std::move(request)), response,
          [response, done = std::move(done)](std::optional<Error> error) {
            if (error) {
              done(*std::move(error));
            } else {
              done(std::move(*response));
            }
          });
  }

  std::shared_ptr<internal::Connection> connection_;
};

// The truth of a FeedbackRequest, in the application's kind of output: a label (number or text) or a number.
google::protobuf::Value Truth(double truth);
google::protobuf::Value Truth(std::string truth);

}  // namespace clipper::client

#endif  // CLIPPER_CLIENT_H_
