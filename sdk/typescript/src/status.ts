// SPDX-License-Identifier: Apache-2.0
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { fromBinary } from "@bufbuild/protobuf";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import { ClipperError, codeName, milliseconds } from "./errors.js";

/** The error of a call over gRPC: of its code, its message and its google.rpc.Status, if it has one. */
export function statusError(code: number, message: string, status: Uint8Array | undefined, cause: unknown): ClipperError {
  let reason: string | undefined;
  let field: string | undefined;
  let retryAfter: number | undefined;
  for (const any of status ? fields(status, 3) : []) {
    const type = text(fields(any, 1)[0]);
    const value = fields(any, 2)[0] ?? new Uint8Array();
    if (type.endsWith("/google.rpc.ErrorInfo") && text(fields(value, 2)[0]) === "clipper.dev") {
      reason = text(fields(value, 1)[0]);
      for (const entry of fields(value, 3)) {
        if (text(fields(entry, 1)[0]) === "field") {
          field = text(fields(entry, 2)[0]);
        }
      }
    } else if (type.endsWith("/google.rpc.RetryInfo")) {
      retryAfter = milliseconds(fromBinary(DurationSchema, fields(value, 1)[0] ?? new Uint8Array()));
    }
  }
  return new ClipperError(message, { code: codeName(code), reason, field, retryAfter, cause });
}

/** The values of a field of an encoded message whose values have a length. */
function fields(message: Uint8Array, number: number): Uint8Array[] {
  const reader = new BinaryReader(message);
  const found: Uint8Array[] = [];
  while (reader.pos < reader.len) {
    const [no, type] = reader.tag();
    if (no === number && type === WireType.LengthDelimited) {
      found.push(reader.bytes());
    } else {
      reader.skip(type, no);
    }
  }
  return found;
}

function text(bytes: Uint8Array | undefined): string {
  return new TextDecoder().decode(bytes);
}
