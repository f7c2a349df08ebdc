// SPDX-License-Identifier: Apache-2.0
import type { Duration } from "@bufbuild/protobuf/wkt";
import { ErrorReason as Reason, type Error as ErrorMessage } from "./gen/clipper/v1/error_pb.js";

/** The canonical codes of gRPC, by number. */
const codes = [
  "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
] as const;

/** The class of an error, as google.rpc.Code spells it. */
export type Code = (typeof codes)[number];

/** A cause that programs can test. A server that is newer than this package may have others. */
export type ErrorReason = Exclude<keyof typeof Reason, "UNSPECIFIED"> | (string & {});

/** What is known of an error besides its message. */
export interface ErrorDetail {
  code: Code;
  reason?: ErrorReason | undefined;
  field?: string | undefined;
  retryAfter?: number | undefined;
  cause?: unknown;
}

/** Every call that fails throws this. Test `reason`; `message` is for people. */
export class ClipperError extends Error {
  /** The class of the error. */
  readonly code: Code;
  /** The cause; undefined when the caller ended the call, or something between client and server did. */
  readonly reason: ErrorReason | undefined;
  /** The field of the request at fault, such as `input[3]`. */
  readonly field: string | undefined;
  /** The milliseconds after which a repetition may succeed, where that is known. */
  readonly retryAfter: number | undefined;

  constructor(message: string, detail: ErrorDetail) {
    super(message, { cause: detail.cause });
    this.name = "ClipperError";
    this.code = detail.code;
    this.reason = detail.reason ?? suggested[detail.code];
    this.field = detail.field || undefined;
    this.retryAfter = detail.retryAfter;
  }
}

/** The reasons of errors that were not made by Clipper itself, such as a connection that breaks. */
const suggested: Partial<Record<Code, ErrorReason>> = {
  DEADLINE_EXCEEDED: "DEADLINE",
  UNAVAILABLE: "UNAVAILABLE",
};

/** The name of a code of gRPC. */
export function codeName(code: number): Code {
  return codes[code] ?? "UNKNOWN";
}

/** The error of one item of a batch or a stream. */
export function itemError(e: ErrorMessage): ClipperError {
  return new ClipperError(e.message, {
    code: codeName(e.code),
    reason: e.reason === Reason.UNSPECIFIED ? undefined : (Reason[e.reason] ?? String(e.reason)),
    field: e.field,
    retryAfter: e.retryAfter && milliseconds(e.retryAfter),
  });
}

/** The length of a duration in milliseconds. */
export function milliseconds(d: Duration): number {
  return Number(d.seconds) * 1000 + d.nanos / 1e6;
}
