// SPDX-License-Identifier: Apache-2.0
#include "registration.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <stdexcept>
#include <utility>

#include <grpcpp/create_channel.h>
#include <unistd.h>

#include "secure.h"

namespace clipper::internal {
namespace {

using std::chrono::milliseconds;

// Asked for, and renewed after a third of it.
constexpr int kLeaseSeconds = 15;
constexpr milliseconds kRetry{1000};
constexpr milliseconds kCall{3000};
constexpr std::size_t kMaxReplica = 63;

}  // namespace

std::string ReachedAt(const std::string& serving) {
  if (serving.rfind("unix:", 0) == 0) return serving;
  const std::size_t colon = serving.rfind(':');
  const std::string host = serving.substr(0, colon);
  if (!host.empty() && host != "0.0.0.0" && host != "[::]") return serving;
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) {
    throw std::runtime_error("where do others reach this container? Set CLIPPER_ADVERTISE_ADDRESS: this machine has no name");
  }
  return name.data() + serving.substr(colon);
}

std::string ReplicaId(const std::string& address) {
  std::string id = address.substr(address.size() - std::min(address.size(), kMaxReplica));
  std::replace_if(id.begin(), id.end(), [](unsigned char c) { return !(c < 0x80 && std::isalnum(c) != 0) && c != '.' && c != '_'; }, '-');
  return id.substr(std::min(id.find_first_not_of("._-"), id.size()));
}

Registration::Registration(const Settings& settings, const std::string& serving) : settings_(settings) {
  if (settings.model_name.empty() || settings.model_version.empty()) {
    throw std::runtime_error("to register, a container needs to know what it serves: set CLIPPER_MODEL_NAME and CLIPPER_MODEL_VERSION");
  }
  request_.set_model(settings.model_name);
  request_.set_version(settings.model_version);
  std::string address = settings.advertise_address.empty() ? ReachedAt(serving) : settings.advertise_address;
  if (ServesSecurely(settings) && address.rfind("tls://", 0) != 0 && address.rfind("unix:", 0) != 0) address = "tls://" + address;
  request_.set_address(address);
  request_.set_replica(ReplicaId(request_.address()));
  request_.mutable_lease()->set_seconds(kLeaseSeconds);
  service_ = v1::ModelService::NewStub(grpc::CreateChannel(settings.register_address, RegisterSecurity(settings)));
  RegisterToken(settings);  // What cannot be used is to be known at the start.
}

void Registration::Keep(std::function<void(std::string)> refused) {
  std::lock_guard lock(mu_);
  if (leaving_) return;
  thread_ = std::thread([this, refused = std::move(refused)] { Renew(refused); });
}

void Registration::Leave() {
  {
    std::lock_guard lock(mu_);
    if (std::exchange(leaving_, true)) return;
    if (renewing_ != nullptr) renewing_->TryCancel();
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  if (!registered_) return;
  request_.mutable_lease()->set_seconds(0);
  grpc::ClientContext context;
  if (const grpc::Status status = Register(context); !status.ok()) {
    Log(Level::kWarning, "the registration is left to expire", {{"error", status.error_message()}});
  }
}

void Registration::Renew(const std::function<void(std::string)>& refused) {
  std::string said;
  for (;;) {
    milliseconds wait{kLeaseSeconds * 1000 / 3};
    registered_ = true;
    grpc::ClientContext context;
    {
      std::lock_guard lock(mu_);
      if (leaving_) return;
      renewing_ = &context;
    }
    const grpc::Status status = Register(context);
    {
      std::lock_guard lock(mu_);
      renewing_ = nullptr;
      if (leaving_) return;
    }
    if (status.error_code() == grpc::INVALID_ARGUMENT) {
      registered_ = false;
      refused("register at Clipper: " + status.error_message());
      return;
    }
    if (!status.ok()) wait = kRetry;
    if (const std::string& now = status.ok() ? "registered" : status.error_message(); now != said) {
      said = now;
      if (status.ok()) {
        Log(Level::kInfo, "registered", {{"replica", request_.replica()}, {"address", request_.address()}});
      } else {
        Log(Level::kWarning, "not registered, trying again", {{"error", said}});
      }
    }
    std::unique_lock lock(mu_);
    if (changed_.wait_for(lock, wait, [this] { return leaving_; })) return;
  }
}

grpc::Status Registration::Register(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + kCall);
  try {
    request_.set_token(RegisterToken(settings_));
    if (RegistersSecurely(settings_)) {  // With the certificates as they are now.
      service_ = v1::ModelService::NewStub(grpc::CreateChannel(settings_.register_address, RegisterSecurity(settings_)));
    }
  } catch (const std::exception& e) {
    return {grpc::StatusCode::UNKNOWN, e.what()};
  }
  v1::RegisterReplicaResponse response;
  return service_->RegisterReplica(&context, request_, &response);
}

}  // namespace clipper::internal
