// SPDX-License-Identifier: Apache-2.0
// What a container is told on the command line and by the environment.
#ifndef CLIPPER_SRC_SETTINGS_H_
#define CLIPPER_SRC_SETTINGS_H_

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "log.h"

namespace clipper::internal {

struct Settings {
  std::string address;
  std::string model_name, model_version, model_path;
  std::string register_address, advertise_address;
  std::string tls_cert, tls_key, tls_client_ca;  // files; empty: no TLS
  bool register_tls = false;
  std::string register_tls_ca, register_tls_cert, register_tls_key;
  std::string register_token, register_token_file;
  std::string metrics_address;  // empty: no metrics
  int max_message_bytes = 0;
  Level log_level = Level::kInfo;
  bool exit_with_parent = false;
  bool help = false;
};

// A command line or a variable that is wrong.
struct SettingsError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Reads the arguments after the program's name; getenv returns the value of a variable, or nullptr.
Settings ParseSettings(const std::vector<std::string>& arguments, const std::function<const char*(const char*)>& getenv);

// What --help prints.
std::string Help(const std::string& program);

}  // namespace clipper::internal

#endif  // CLIPPER_SRC_SETTINGS_H_
