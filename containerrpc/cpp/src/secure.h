// SPDX-License-Identifier: Apache-2.0
// TLS and the token of registration, from files that are read again when they change.
#ifndef CLIPPER_SRC_SECURE_H_
#define CLIPPER_SRC_SECURE_H_

#include <memory>
#include <string>

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include "settings.h"

namespace clipper::internal {

// Whether the container serves with TLS, and whether it registers with TLS. A unix socket needs none.
bool ServesSecurely(const Settings& settings);
bool RegistersSecurely(const Settings& settings);

// How the container serves. Throws when a file cannot be read or one of two is not set.
std::shared_ptr<grpc::ServerCredentials> ServerSecurity(const Settings& settings);

// How Clipper is called to register, with the files as they are now. Throws as above.
std::shared_ptr<grpc::ChannelCredentials> RegisterSecurity(const Settings& settings);

// The token to register with, as it is now; empty when there is none. Throws when the file has none.
std::string RegisterToken(const Settings& settings);

}  // namespace clipper::internal

#endif  // CLIPPER_SRC_SECURE_H_
