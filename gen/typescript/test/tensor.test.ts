// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, fromJson, toBinary, toJson } from "@bufbuild/protobuf";
import { ModelContainerService } from "../src/clipper/v1/model_container_service_pb.js";
import { DataType, TensorSchema } from "../src/clipper/v1/tensor_pb.js";

const numbers = create(TensorSchema, {
  name: "x",
  dataType: DataType.FLOAT64,
  shape: [2n],
  data: new Uint8Array(new Float64Array([1.5, -2]).buffer),
});

test("a tensor comes back from the wire as it was", () => {
  const back = fromBinary(TensorSchema, toBinary(TensorSchema, numbers));
  assert.deepEqual(back, numbers);
  assert.deepEqual([...new Float64Array(back.data.slice().buffer)], [1.5, -2]);
});

test("a tensor of strings comes back from JSON as it was", () => {
  const strings = create(TensorSchema, { dataType: DataType.STRING, shape: [2n], strings: ["ü€", ""] });
  const json = toJson(TensorSchema, strings);
  assert.deepEqual(json, { dataType: "DATA_TYPE_STRING", shape: ["2"], strings: ["ü€", ""] });
  assert.deepEqual(fromJson(TensorSchema, json), strings);
});

test("a truncated tensor is refused", () => {
  assert.throws(() => fromBinary(TensorSchema, toBinary(TensorSchema, numbers).subarray(0, 10)));
});

test("the container service has its stream", () => {
  assert.equal(ModelContainerService.method.predict.methodKind, "bidi_streaming");
});
