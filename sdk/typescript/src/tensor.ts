// SPDX-License-Identifier: Apache-2.0
import { create } from "@bufbuild/protobuf";
import { base64Decode, base64Encode } from "@bufbuild/protobuf/wire";
import { DataType, TensorSchema, type Tensor } from "./gen/clipper/v1/tensor_pb.js";

/** The arrays whose elements have a type of Clipper's. */
export type TypedArray =
  | Uint8Array | Uint16Array | Uint32Array | BigUint64Array | Int8Array | Int16Array | Int32Array | BigInt64Array | Float32Array | Float64Array;

/**
 * The input of one query. Numbers, strings, booleans and lists of them are read by the application's signature; a typed
 * array or a tensor has the type that it has, which must be the signature's over gRPC. An object is named inputs. Bytes
 * are made with `bytes`.
 */
export type Input = JsonText | number | bigint | string | boolean | TypedArray | Tensor | readonly Input[] | { readonly [name: string]: Input };

/** What an answer holds: a label, a number, a list of scores, nested lists; of several named outputs an object. */
export type Value = number | bigint | string | boolean | Uint8Array | Value[] | { [name: string]: Value };

const arrays = {
  [DataType.UINT8]: Uint8Array,
  [DataType.UINT16]: Uint16Array,
  [DataType.UINT32]: Uint32Array,
  [DataType.UINT64]: BigUint64Array,
  [DataType.INT8]: Int8Array,
  [DataType.INT16]: Int16Array,
  [DataType.INT32]: Int32Array,
  [DataType.INT64]: BigInt64Array,
  [DataType.FLOAT32]: Float32Array,
  [DataType.FLOAT64]: Float64Array,
};

/** An input that is JSON text already; it is sent as it is. */
export class JsonText {
  constructor(readonly text: string) {}
}

/** Bytes of any length as an input, where the signature asks for them. */
export function bytes(data: Uint8Array): { readonly b64: string } {
  return { b64: base64Encode(data) };
}

/**
 * A tensor of the elements of a typed array. Without a shape it is a list; an empty shape is a scalar. It takes the
 * elements as they are now. Throws a RangeError when the shape does not fit.
 */
export function tensor(data: TypedArray, shape: readonly number[] = [data.length], name = ""): Tensor {
  if (shape.reduce((a, b) => a * b, 1) !== data.length || shape.some((n) => !Number.isSafeInteger(n) || n < 0)) {
    throw new RangeError(`the shape [${shape.join(", ")}] does not fit ${data.length} elements`);
  }
  const type = Object.entries(arrays).find(([, a]) => data instanceof a);
  if (!type) {
    throw new TypeError(`${Object.prototype.toString.call(data).slice(8, -1)} has no type of Clipper's`);
  }
  return create(TensorSchema, {
    name,
    dataType: Number(type[0]),
    shape: shape.map(BigInt),
    data: littleEndian(new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice(), data.BYTES_PER_ELEMENT),
  });
}

/**
 * The elements of a tensor of numbers in one flat array, row-major; float16 and bfloat16 become a Float32Array. Throws a
 * TypeError for text and bytes, whose elements are in `strings` and `byteStrings`.
 */
export function typedArray(t: Tensor): TypedArray {
  switch (t.dataType) {
    case DataType.BOOL:
      return new Uint8Array(t.data); // A copy: slice of a Buffer is none.
    case DataType.FLOAT16:
      return Float32Array.from(words(t.data), half);
    case DataType.BFLOAT16:
      return new Float32Array(Uint32Array.from(words(t.data), (w) => w << 16).buffer);
  }
  const Elements = arrays[t.dataType as keyof typeof arrays];
  if (!Elements) {
    throw new TypeError(`a tensor of ${DataType[t.dataType]} has no numbers`);
  }
  return new Elements(littleEndian(new Uint8Array(t.data), Elements.BYTES_PER_ELEMENT).buffer as ArrayBuffer);
}

/** A tensor as a value or nested lists. Integers of 64 bits are numbers where a number holds them exactly, else bigints. */
export function toValue(t: Tensor): Value {
  const flat = elements(t);
  const shape = t.shape.map(Number);
  const read = (depth: number, from: number, size: number): Value => {
    if (depth === shape.length) {
      return flat[from]!;
    }
    const step = size / shape[depth]!;
    if (depth === shape.length - 1) {
      return flat.slice(from, from + size);
    }
    return Array.from({ length: shape[depth]! }, (_, i) => read(depth + 1, from + i * step, step));
  };
  return shape.includes(0) ? [] : read(0, 0, flat.length);
}

/** What several outputs are: the value of the only one, or an object of the named ones. */
export function outputValue(outputs: readonly Tensor[]): Value | undefined {
  return outputs.length < 2 ? outputs[0] && toValue(outputs[0]) : Object.fromEntries(outputs.map((t) => [t.name, toValue(t)]));
}

/** An input as the tensors that it is made of; undefined when it has a part that only a signature gives a type. */
export function toTensors(input: Input): Tensor[] | undefined {
  if (isTensor(input)) {
    return [input];
  }
  if (isTypedArray(input)) {
    return [tensor(input)];
  }
  if (typeof input !== "object" || Array.isArray(input) || input instanceof JsonText) {
    return undefined;
  }
  const members = Object.entries(input);
  const named = members.map(([name, v]) => (isTensor(v) ? create(TensorSchema, { ...v, name }) : isTypedArray(v) ? tensor(v, undefined, name)
      : typeof v === "string" ? create(TensorSchema, { name, dataType: DataType.STRING, strings: [v] }) : undefined));
  return members.length > 0 && named.every((t) => t !== undefined) ? named : undefined;
}

/** The JSON text of an input, with every digit of its integers. What is not a number is written as it is, for the server to name. */
export function toJsonText(input: Input): string {
  switch (typeof input) {
    case "string":
      return JSON.stringify(input);
    case "object":
      if (input instanceof JsonText) {
        return input.text;
      }
      if (isTensor(input)) {
        return toJsonText(jsonValue(toValue(input)));
      }
      if (isTypedArray(input)) {
        return `[${input.join(",")}]`;
      }
      if (Array.isArray(input)) {
        return `[${input.map(toJsonText).join(",")}]`;
      }
      if (input !== null) {
        return `{${Object.entries(input).map(([k, v]) => `${JSON.stringify(k)}:${toJsonText(v)}`).join(",")}}`;
      }
  }
  return String(input);
}

/** A value that was read from JSON, with its bytes decoded. */
export function fromJsonValue(v: unknown): Value {
  if (Array.isArray(v)) {
    return v.map(fromJsonValue);
  }
  if (typeof v === "object" && v !== null) {
    const members = Object.entries(v);
    if (members.length === 1 && members[0]![0] === "b64" && typeof members[0]![1] === "string") {
      return base64Decode(members[0]![1]);
    }
    return Object.fromEntries(members.map(([k, e]) => [k, fromJsonValue(e)]));
  }
  return v as Value;
}

function jsonValue(v: Value): Input {
  return v instanceof Uint8Array ? bytes(v) : Array.isArray(v) ? v.map(jsonValue) : (v as Input);
}

function elements(t: Tensor): Value[] {
  switch (t.dataType) {
    case DataType.STRING:
      return t.strings;
    case DataType.BYTES:
      return t.byteStrings;
    case DataType.BOOL:
      return Array.from(t.data, (b) => b !== 0);
  }
  return Array.from<number | bigint, Value>(typedArray(t) as ArrayLike<number | bigint>, (n) =>
    typeof n === "bigint" && n >= Number.MIN_SAFE_INTEGER && n <= Number.MAX_SAFE_INTEGER ? Number(n) : n,
  );
}

function isTensor(v: unknown): v is Tensor {
  return typeof v === "object" && v !== null && (v as Partial<Tensor>).$typeName === TensorSchema.typeName;
}

function isTypedArray(v: unknown): v is TypedArray {
  return ArrayBuffer.isView(v) && !(v instanceof DataView);
}

const bigEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 0;

/** Turns elements of this machine's order into little-endian ones, or back, in place. */
function littleEndian(data: Uint8Array, size: number): Uint8Array {
  if (bigEndian) {
    for (let i = 0; i < data.length; i += size) {
      data.subarray(i, i + size).reverse();
    }
  }
  return data;
}

function words(data: Uint8Array): Uint16Array {
  return new Uint16Array(littleEndian(new Uint8Array(data), 2).buffer as ArrayBuffer);
}

/** The value of an IEEE 754 binary16. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) {
    return fraction ? NaN : sign * Infinity;
  }
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}
