// SPDX-License-Identifier: Apache-2.0
// The example of the README, without exceptions.
#include <cstdint>
#include <iostream>

#include "clipper/client.h"

namespace clip = clipper::client;

int Ask() {
  auto client = clip::Client::Make({});
  if (!client) return std::cerr << client.error().ToString() << "\n", 1;

  clipper::v1::QueryRequest request;
  request.set_application("digits");
  *request.add_inputs() = clip::MakeTensor<double>({0.1, 0.2});
  auto answer = client->Query(request);
  if (!answer) return std::cerr << answer.error().ToString() << "\n", 1;
  auto label = clip::Value<std::int64_t>(answer->outputs(0));
  if (label) std::cout << *label << "\n";

  clipper::v1::FeedbackRequest feedback;
  feedback.set_application("digits");
  feedback.set_feedback_id(answer->feedback_id());
  *feedback.mutable_truth() = clip::Truth(7);
  auto learned = client->Feedback(feedback);
  return learned ? 0 : 1;
}
