// SPDX-License-Identifier: Apache-2.0
#include "secure.h"

#include <fstream>
#include <sstream>
#include <stdexcept>

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

namespace clipper::internal {
namespace {

// How often gRPC looks whether a certificate has changed.
constexpr unsigned kRefreshSeconds = 1;

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) throw std::runtime_error("cannot read " + path);
  return text.str();
}

}  // namespace

bool ServesSecurely(const Settings& s) {
  return s.address.rfind("unix:", 0) != 0 && !(s.tls_cert.empty() && s.tls_key.empty() && s.tls_client_ca.empty());
}

bool RegistersSecurely(const Settings& s) { return s.register_tls || !(s.register_tls_ca.empty() && s.register_tls_cert.empty() && s.register_tls_key.empty()); }

std::shared_ptr<grpc::ServerCredentials> ServerSecurity(const Settings& s) {
  if (!ServesSecurely(s)) return grpc::InsecureServerCredentials();
  if (s.tls_cert.empty() || s.tls_key.empty()) throw std::runtime_error("TLS: a certificate and its key belong together: set --tls-cert and --tls-key");
  Read(s.tls_cert);  // gRPC itself would serve, and fail every handshake.
  Read(s.tls_key);
  if (!s.tls_client_ca.empty()) Read(s.tls_client_ca);
  auto files = std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(s.tls_key, s.tls_cert, s.tls_client_ca, kRefreshSeconds);
  grpc::experimental::TlsServerCredentialsOptions options(files);
  options.watch_identity_key_cert_pairs();
  if (!s.tls_client_ca.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

std::shared_ptr<grpc::ChannelCredentials> RegisterSecurity(const Settings& s) {
  if (!RegistersSecurely(s)) return grpc::InsecureChannelCredentials();
  if (s.register_tls_cert.empty() != s.register_tls_key.empty()) {
    throw std::runtime_error("TLS: a certificate and its key belong together: set --register-tls-cert and --register-tls-key");
  }
  grpc::SslCredentialsOptions options;
  if (!s.register_tls_ca.empty()) options.pem_root_certs = Read(s.register_tls_ca);
  if (!s.register_tls_cert.empty()) {
    options.pem_cert_chain = Read(s.register_tls_cert);
    options.pem_private_key = Read(s.register_tls_key);
  }
  return grpc::SslCredentials(options);
}

std::string RegisterToken(const Settings& s) {
  if (s.register_token_file.empty()) return s.register_token;
  std::istringstream text(Read(s.register_token_file));
  std::string token;
  text >> token;
  if (token.empty()) throw std::runtime_error("the token to register with: " + s.register_token_file + " is empty");
  return token;
}

}  // namespace clipper::internal
