// SPDX-License-Identifier: Apache-2.0
// What a container counts, for Prometheus.
#ifndef CLIPPER_SRC_METRICS_H_
#define CLIPPER_SRC_METRICS_H_

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>

#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

namespace clipper::internal {

// Safe for concurrent use.
class Metrics {
 public:
  Metrics();

  // Serves them at http://address/metrics, unless it is empty; throws when that address cannot be served on.
  void Serve(const std::string& address);

  void SetReady(bool ready) { ready_.Set(ready ? 1 : 0); }
  void Taken() { in_flight_.Increment(); }
  // A batch that was taken is answered or has nobody left to answer.
  void Left() { in_flight_.Decrement(); }
  void Predicted(std::size_t rows, std::size_t failed_rows, std::chrono::nanoseconds took);
  void Failed(std::size_t rows, std::chrono::nanoseconds took);
  void Refused() { refused_.Increment(); }

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Counter &ok_, &error_, &refused_, &rows_, &row_errors_;
  prometheus::Histogram &seconds_, &batch_rows_;
  prometheus::Gauge &in_flight_, &ready_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace clipper::internal

#endif  // CLIPPER_SRC_METRICS_H_
