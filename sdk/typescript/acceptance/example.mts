// SPDX-License-Identifier: Apache-2.0
// The example of the README.
import { ClipperError, duration, GrpcClient, value } from "@clipper-serving/client/grpc";

const client = new GrpcClient();
await client.applications.createApplication({
  application: { name: "digits", models: [{ model: "digits" }], defaultOutput: value(-1), latencyObjective: duration(50) },
});
try {
  const answer = await client.query("digits", new Float64Array([0.1, 0.2]), { context: "ada" });
  console.log(answer.output, answer.confidence, answer.isDefault);
  await client.feedback("digits", { feedbackId: answer.feedbackId, truth: 7 });
} catch (e) {
  if (e instanceof ClipperError && e.reason === "APPLICATION_NOT_FOUND") {
    console.error(`create it first: ${e.message}`);
  } else {
    throw e;
  }
} finally {
  client.close();
}
