// SPDX-License-Identifier: Apache-2.0
// The process around a container: settings, loading, signals, exit codes.
#include "clipper/container.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <thread>

#include <pthread.h>
#include <unistd.h>

#include "errors.h"
#include "log.h"
#include "metrics.h"
#include "registration.h"
#include "server.h"
#include "settings.h"

namespace clipper::internal {
namespace {

// EX_CONFIG of sysexits.h: starting again will not help.
constexpr int kNever = 78;
constexpr int kRetry = 1;
constexpr int kUsage = 2;

// How long a container that has lost its parent may take to end by itself.
constexpr std::chrono::seconds kOrphan{5};

// Whoever started the container shows the last line, so this one is for people.
int Fail(int code, std::string why) {
  std::replace_if(why.begin(), why.end(), [](unsigned char c) { return c < 0x20; }, ' ');
  std::fprintf(stderr, "%s\n", why.c_str());
  return code;
}

// Whether an error may be gone the next time.
bool Passing(const std::error_code& code) {
  using std::errc;
  const std::array passing = {errc::address_in_use,     errc::connection_aborted,  errc::connection_refused, errc::connection_reset,
                              errc::host_unreachable,   errc::network_down,        errc::network_unreachable, errc::not_enough_memory,
                              errc::timed_out,          errc::too_many_files_open, errc::broken_pipe,         errc::resource_unavailable_try_again,
                              errc::no_buffer_space,    errc::not_connected,       errc::interrupted,         errc::too_many_files_open_in_system};
  return std::any_of(passing.begin(), passing.end(), [&](errc error) { return code == error; });
}

// The words about a model that cannot be loaded.
ModelError NotLoaded(const Loader& loader, const std::string& path, const std::string& why) {
  std::string message = loader.needs_path ? "cannot load the model " + path + ": " : "cannot load the model: ";
  std::error_code ignored;
  if (loader.needs_path && !std::filesystem::exists(path, ignored)) message += "there is no such file or folder: ";
  message += why;
  return ModelError(loader.expects.empty() ? message : message + "; expected " + loader.expects);
}

// Says whether an error is one of too little memory: most frameworks say it in words of their own.
bool OutOfMemory(const std::string& why) {
  const std::array words = {"bad_alloc", "out of memory", "OutOfMemory", "OOM ", "nsufficient memory", "ailed to allocate", "annot allocate", "nable to allocate"};
  return std::any_of(words.begin(), words.end(), [&](const char* word) { return why.find(word) != std::string::npos; });
}

// Makes the errors of a model that never can be loaded a ModelError.
std::unique_ptr<Model> Load(const Loader& loader, const std::string& path) {
  if (loader.needs_path && path.empty()) throw ModelError("no path of a saved model: set CLIPPER_MODEL_PATH or --model-path");
  try {
    std::unique_ptr<Model> model = loader.load(path);
    if (model->parallel < 1) throw std::logic_error("parallel is 0; it is the number of batches predicted at the same time, at least 1");
    model->properties.insert({{"runtime", "clipper-cpp"}, {"language", "C++"}});
    return model;
  } catch (const std::system_error& e) {
    if (Passing(e.code())) throw;
    throw NotLoaded(loader, path, e.what());
  } catch (...) {
    const std::string why = Describe(std::current_exception());
    if (OutOfMemory(why)) throw std::runtime_error("not enough memory to load " + (path.empty() ? "the model" : path) + ": " + why);
    throw NotLoaded(loader, path, why);
  }
}

// Ends the wait of the main thread, from any other; the first failure counts.
class Stop {
 public:
  Stop() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGTERM);
    sigaddset(&signals_, SIGINT);
    // Every thread that is made from now on inherits it, so that only the main one gets the signals.
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  }

  void Wait() {
    int signal = 0;
    sigwait(&signals_, &signal);
  }

  void Request() { pthread_kill(main_, SIGTERM); }

  void Fail(std::exception_ptr failure) {
    {
      std::lock_guard lock(mu_);
      if (failure_ == nullptr) failure_ = std::move(failure);
    }
    Request();
  }

  // Throws the failure, if there was one.
  void Rethrow() {
    std::lock_guard lock(mu_);
    if (failure_ != nullptr) std::rethrow_exception(failure_);
  }

 private:
  sigset_t signals_{};
  const pthread_t main_ = pthread_self();
  std::mutex mu_;
  std::exception_ptr failure_;
};

// Stops when the pipe that the parent holds is closed, even when the model hangs.
void WatchParent(Stop& stop) {
  std::array<char, 4096> ignored{};
  for (;;) {
    const ssize_t size = read(STDIN_FILENO, ignored.data(), ignored.size());
    if (size == 0 || (size < 0 && errno != EINTR)) break;
  }
  Log(Level::kWarning, "the parent process is gone");
  stop.Request();
  std::this_thread::sleep_for(kOrphan);
  std::_Exit(kRetry);
}

// Serves until a signal comes; throws what the container ended for otherwise.
void Run(const Settings& settings, Loader loader) {
  // The thread that watches the parent lives on when this has returned.
  static Stop stop;
  Metrics metrics;
  metrics.Serve(settings.metrics_address);
  auto load = [&loader](const std::string& path) { return Load(loader, path); };
  Server server(settings, {load, loader.needs_path, loader.expects}, metrics);
  const std::string serving = server.Listen();
  Log(Level::kInfo, "listening", {{"address", serving}});
  std::optional<Registration> registration;
  if (settings.exit_with_parent) std::thread(WatchParent, std::ref(stop)).detach();
  try {
    if (!settings.register_address.empty()) registration.emplace(settings, serving);
    server.Load(
        [&](const Options& options) {
          if (registration) registration->Keep([](const std::string& why) { stop.Fail(std::make_exception_ptr(std::runtime_error(why))); });
          Fields fields = {{"model", settings.model_name}, {"version", settings.model_version}};
          fields.insert(fields.end(), options.properties.begin(), options.properties.end());
          Log(Level::kInfo, "serving", fields);
        },
        [](const std::exception_ptr& failure) { stop.Fail(failure); });
    stop.Wait();
  } catch (...) {
    stop.Fail(std::current_exception());
  }
  if (registration) registration->Leave();
  Log(Level::kInfo, "draining");
  server.Drain();
  if (!server.Shutdown()) {
    // The model's thread cannot be ended, and nothing that it uses may be destroyed.
    Log(Level::kInfo, "stopped while the model was being loaded");
    std::_Exit(0);
  }
  stop.Rethrow();
}

}  // namespace

int Serve(int argc, char** argv, Loader loader) {
  Settings settings;
  try {
    settings = ParseSettings({argv + 1, argv + argc}, [](const char* name) -> const char* { return std::getenv(name); });
  } catch (const SettingsError& e) {
    return Fail(kUsage, std::string(argv[0]) + ": " + e.what());
  }
  if (settings.help) {
    std::fputs(Help(argv[0]).c_str(), stdout);
    return 0;
  }
  ConfigureLog(settings.log_level);
  try {
    Run(settings, std::move(loader));
  } catch (const ModelError& e) {
    return Fail(kNever, e.what());
  } catch (...) {
    return Fail(kRetry, Describe(std::current_exception()));
  }
  Log(Level::kInfo, "stopped");
  return 0;
}

}  // namespace clipper::internal
