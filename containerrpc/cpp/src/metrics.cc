// SPDX-License-Identifier: Apache-2.0
#include "metrics.h"

#include <stdexcept>

#include "log.h"

namespace clipper::internal {
namespace {

prometheus::Counter& Batches(prometheus::Registry& registry, const char* result) {
  return prometheus::BuildCounter().Name("clipper_container_batches_total").Help("Batches answered.").Register(registry).Add({{"result", result}});
}

double Seconds(std::chrono::nanoseconds took) { return std::chrono::duration<double>(took).count(); }

}  // namespace

Metrics::Metrics()
    : registry_(std::make_shared<prometheus::Registry>(prometheus::Registry::InsertBehavior::Merge)),
      ok_(Batches(*registry_, "ok")),
      error_(Batches(*registry_, "error")),
      refused_(Batches(*registry_, "refused")),
      rows_(prometheus::BuildCounter().Name("clipper_container_rows_total").Help("Rows predicted.").Register(*registry_).Add({})),
      row_errors_(prometheus::BuildCounter().Name("clipper_container_row_errors_total").Help("Rows that failed one by one.").Register(*registry_).Add({})),
      seconds_(prometheus::BuildHistogram().Name("clipper_container_predict_seconds").Help("Time that the model took for a batch.").Register(*registry_).Add(
          {}, prometheus::Histogram::BucketBoundaries{1e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 5, 10})),
      batch_rows_(prometheus::BuildHistogram().Name("clipper_container_batch_rows").Help("Rows of a batch.").Register(*registry_).Add(
          {}, prometheus::Histogram::BucketBoundaries{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096})),
      in_flight_(prometheus::BuildGauge().Name("clipper_container_in_flight").Help("Batches that wait or are being predicted.").Register(*registry_).Add({})),
      ready_(prometheus::BuildGauge().Name("clipper_container_ready").Help("1 while the container can predict.").Register(*registry_).Add({})) {}

void Metrics::Serve(const std::string& address) {
  if (address.empty()) return;
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos) throw std::runtime_error("cannot serve metrics on " + address + ": it is host:port");
  const std::string host = colon == 0 ? "127.0.0.1" : address.substr(0, colon);
  try {
    exposer_ = std::make_unique<prometheus::Exposer>(host + address.substr(colon), 1);
  } catch (const std::exception&) {
    throw std::runtime_error("cannot serve metrics on " + address + ": the address is in use, or is none of this machine");
  }
  exposer_->RegisterCollectable(registry_);
  Log(Level::kInfo, "serving metrics", {{"address", host + ":" + std::to_string(exposer_->GetListeningPorts().front())}});
}

void Metrics::Predicted(std::size_t rows, std::size_t failed_rows, std::chrono::nanoseconds took) {
  ok_.Increment();
  rows_.Increment(static_cast<double>(rows));
  if (failed_rows != 0) row_errors_.Increment(static_cast<double>(failed_rows));
  seconds_.Observe(Seconds(took));
  batch_rows_.Observe(static_cast<double>(rows));
}

void Metrics::Failed(std::size_t rows, std::chrono::nanoseconds took) {
  error_.Increment();
  seconds_.Observe(Seconds(took));
  batch_rows_.Observe(static_cast<double>(rows));
}

}  // namespace clipper::internal
