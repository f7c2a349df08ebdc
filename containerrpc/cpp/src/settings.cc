// SPDX-License-Identifier: Apache-2.0
#include "settings.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <climits>

namespace clipper::internal {
namespace {

struct Setting {
  const char* flag;
  const char* variable;
  const char* initial;
  const char* text;
  void (*set)(Settings&, const std::string&);
};

// The setters throw what was expected.
const std::array kSettings = {
    Setting{"--address", "CLIPPER_CONTAINER_ADDRESS", "127.0.0.1:7000", "unix:/path or host:port to serve on; port 0 takes a free one",
            [](Settings& s, const std::string& v) { s.address = v; }},
    Setting{"--model-name", "CLIPPER_MODEL_NAME", "", "name of the model", [](Settings& s, const std::string& v) { s.model_name = v; }},
    Setting{"--model-version", "CLIPPER_MODEL_VERSION", "", "version of the model", [](Settings& s, const std::string& v) { s.model_version = v; }},
    Setting{"--model-path", "CLIPPER_MODEL_PATH", "", "file or folder of the saved model", [](Settings& s, const std::string& v) { s.model_path = v; }},
    Setting{"--register-address", "CLIPPER_REGISTER_ADDRESS", "", "gRPC address of Clipper's administration, to register there as a replica",
            [](Settings& s, const std::string& v) { s.register_address = v; }},
    Setting{"--advertise-address", "CLIPPER_ADVERTISE_ADDRESS", "", "where Clipper reaches this container, if not at --address",
            [](Settings& s, const std::string& v) { s.advertise_address = v; }},
    Setting{"--tls-cert", "CLIPPER_CONTAINER_TLS_CERT", "", "file of the certificate to serve with over TLS",
            [](Settings& s, const std::string& v) { s.tls_cert = v; }},
    Setting{"--tls-key", "CLIPPER_CONTAINER_TLS_KEY", "", "file of the certificate's key",
            [](Settings& s, const std::string& v) { s.tls_key = v; }},
    Setting{"--tls-client-ca", "CLIPPER_CONTAINER_TLS_CLIENT_CA", "", "file of the CAs of which Clipper must have a certificate",
            [](Settings& s, const std::string& v) { s.tls_client_ca = v; }},
    Setting{"--register-tls-ca", "CLIPPER_REGISTER_TLS_CA", "", "file of the CAs to trust when registering",
            [](Settings& s, const std::string& v) { s.register_tls_ca = v; }},
    Setting{"--register-tls-cert", "CLIPPER_REGISTER_TLS_CERT", "", "file of the certificate to present when registering",
            [](Settings& s, const std::string& v) { s.register_tls_cert = v; }},
    Setting{"--register-tls-key", "CLIPPER_REGISTER_TLS_KEY", "", "file of that certificate's key",
            [](Settings& s, const std::string& v) { s.register_tls_key = v; }},
    Setting{"--register-token-file", "CLIPPER_REGISTER_TOKEN_FILE", "", "file with the token to register with, or the token itself in CLIPPER_REGISTER_TOKEN",
            [](Settings& s, const std::string& v) { s.register_token_file = v; }},
    Setting{"--metrics-address", "CLIPPER_METRICS_ADDRESS", "", "host:port to serve metrics to Prometheus on; :port is on loopback",
            [](Settings& s, const std::string& v) { s.metrics_address = v; }},
    Setting{"--max-message-bytes", "CLIPPER_MAX_MESSAGE_BYTES", "67108864", "largest request message",
            [](Settings& s, const std::string& v) {
              const auto [end, error] = std::from_chars(v.data(), v.data() + v.size(), s.max_message_bytes);
              if (error != std::errc() || end != v.data() + v.size() || s.max_message_bytes < 1) {
                throw SettingsError("a number of bytes from 1 to " + std::to_string(INT_MAX));
              }
            }},
    Setting{"--log-level", "CLIPPER_LOG_LEVEL", "info", "debug, info, warning or error",
            [](Settings& s, const std::string& v) {
              const std::array names = {"debug", "info", "warning", "error"};
              const auto found = std::find(names.begin(), names.end(), v);
              if (found == names.end()) throw SettingsError("debug, info, warning or error");
              s.log_level = static_cast<Level>(found - names.begin());
            }},
};

void Set(Settings& settings, const Setting& setting, const std::string& given_by, const std::string& value) {
  try {
    setting.set(settings, value);
  } catch (const SettingsError& e) {
    throw SettingsError(given_by + ": '" + value + "' is not " + e.what());
  }
}

}  // namespace

Settings ParseSettings(const std::vector<std::string>& arguments, const std::function<const char*(const char*)>& getenv) {
  Settings settings;
  for (const Setting& setting : kSettings) {
    const char* value = getenv(setting.variable);
    Set(settings, setting, setting.variable, value != nullptr ? value : setting.initial);
  }
  const char* parent = getenv("CLIPPER_EXIT_WITH_PARENT");
  settings.exit_with_parent = parent != nullptr && std::string(parent) == "1";
  const char* secure = getenv("CLIPPER_REGISTER_TLS");
  settings.register_tls = secure != nullptr && std::string(secure) == "1";
  // A command line can be seen by others, so a token is not on it.
  if (const char* token = getenv("CLIPPER_REGISTER_TOKEN"); token != nullptr) settings.register_token = token;

  for (std::size_t i = 0; i < arguments.size(); i++) {
    const std::string& argument = arguments[i];
    const std::size_t equals = argument.find('=');
    const std::string flag = argument.substr(0, equals);
    if (argument == "--help" || argument == "-h") {
      settings.help = true;
      continue;
    }
    if (argument == "--exit-with-parent") {
      settings.exit_with_parent = true;
      continue;
    }
    if (argument == "--register-tls") {
      settings.register_tls = true;
      continue;
    }
    const auto found = std::find_if(kSettings.begin(), kSettings.end(), [&](const Setting& s) { return flag == s.flag; });
    if (found == kSettings.end()) throw SettingsError(flag + " is not a setting; see --help");
    if (equals != std::string::npos) {
      Set(settings, *found, flag, argument.substr(equals + 1));
    } else if (i + 1 < arguments.size()) {
      Set(settings, *found, flag, arguments[++i]);
    } else {
      throw SettingsError(flag + " needs a value");
    }
  }
  return settings;
}

std::string Help(const std::string& program) {
  std::string text = "usage: " + program + " [--flag value ...]\n\nA Clipper model container.\n\n";
  auto line = [&](std::string flag, const std::string& words) {
    flag.resize(std::max<std::size_t>(flag.size() + 1, 30), ' ');
    text += "  " + flag + words + "\n";
  };
  for (const Setting& s : kSettings) {
    const std::string flag = s.flag;
    std::string placeholder = flag.substr(flag.rfind('-') + 1);
    std::transform(placeholder.begin(), placeholder.end(), placeholder.begin(), [](unsigned char c) { return std::toupper(c); });
    line(flag + " " + placeholder, std::string(s.text) + " [" + s.variable + "; default: " + (*s.initial == '\0' ? "none" : s.initial) + "]");
  }
  line("--register-tls", "register over TLS, trusting the CAs of the system [CLIPPER_REGISTER_TLS=1]");
  line("--exit-with-parent", "stop when standard input is closed [CLIPPER_EXIT_WITH_PARENT=1]");
  line("--help", "print this and exit");
  return text + "\nEach setting is also an environment variable; the command line has precedence.\n";
}

}  // namespace clipper::internal
