// SPDX-License-Identifier: Apache-2.0
import { toJson, type DescMethod, type DescMessage, type JsonObject, type JsonValue, type MessageShape } from "@bufbuild/protobuf";
import type { UpdateApplicationRequest } from "./gen/clipper/v1/application_service_pb.js";

/** Verb, path and body of the administration's methods, as proto/gateway.yaml has them; a test compares the two. */
export const routes: Readonly<Record<string, readonly [verb: string, path: string, body?: string]>> = {
  CreateApplication: ["POST", "/v1/applications", "application"],
  ListApplications: ["GET", "/v1/applications"],
  GetApplication: ["GET", "/v1/applications/{application}"],
  UpdateApplication: ["PATCH", "/v1/applications/{application.name}", "application"],
  DeleteApplication: ["DELETE", "/v1/applications/{application}"],
  GetSelectionState: ["GET", "/v1/applications/{application}/state"],
  ResetSelectionState: ["DELETE", "/v1/applications/{application}/state"],
  ExplainSelection: ["GET", "/v1/applications/{application}/explain"],
  ListContexts: ["GET", "/v1/applications/{application}/contexts"],
  ExportSelectionState: ["GET", "/v1/applications/{application}/export"],
  GetModelCorrelations: ["GET", "/v1/applications/{application}/correlations"],
  GetCanary: ["GET", "/v1/applications/{application}/canary"],
  DeployModel: ["POST", "/v1/models", "*"],
  ListModels: ["GET", "/v1/models"],
  GetModel: ["GET", "/v1/models/{model}"],
  DeleteModel: ["DELETE", "/v1/models/{model}"],
  SetCurrentVersion: ["PUT", "/v1/models/{model}/current-version", "*"],
  GetModelVersion: ["GET", "/v1/models/{model}/versions/{version}"],
  UpdateModelVersion: ["PATCH", "/v1/models/{model}/versions/{version}", "*"],
  DeleteModelVersion: ["DELETE", "/v1/models/{model}/versions/{version}"],
  RegisterReplica: ["POST", "/v1/models/{model}/versions/{version}/replicas", "*"],
  GetModelRepository: ["GET", "/v1/model-repository"],
  GetBatching: ["GET", "/v1/models/{model}/versions/{version}/batching"],
  ReadLogs: ["GET", "/v1/models/{model}/versions/{version}/logs"],
};

/** A call of the administration as HTTP. */
export interface HttpRequest {
  verb: string;
  /** With the query. */
  path: string;
  body?: string;
}

/** Writes a call of the administration as HTTP. */
export function toHttp(method: DescMethod, request: MessageShape<DescMessage>): HttpRequest {
  const [verb, template, body] = routes[method.name]!;
  const json = toJson(method.input, request, { useProtoFieldName: true }) as JsonObject;
  const path = template.replace(/\{(.+?)\}/g, (_, name: string) => encodeURIComponent(take(json, name.split(".")) || "-"));
  let content: JsonValue | undefined = body === "*" ? json : undefined;
  if (body !== undefined && body !== "*") {
    content = json[body] ?? {};
    delete json[body];
  }
  if (method.name === "UpdateApplication") {
    content = masked(method, request as UpdateApplicationRequest, content as JsonObject);
    delete json["update_mask"];
  }
  const query = body === "*" ? "" : new URLSearchParams(Object.entries(json).flatMap(([k, v]) => [v].flat().map((e) => [k, String(e)]))).toString();
  return { verb, path: path + (query && `?${query}`), ...(content === undefined ? {} : { body: JSON.stringify(content) }) };
}

/** Removes a text from an object, and returns it. */
function take(json: JsonObject, [name, ...rest]: string[]): string {
  if (rest.length > 0) {
    return take((json[name!] ?? {}) as JsonObject, rest);
  }
  const value = json[name!];
  delete json[name!];
  return String(value ?? "");
}

/** Over REST the body's members are the update's mask: also those that are 0 or empty. */
function masked(method: DescMethod, request: UpdateApplicationRequest, set: JsonObject): JsonObject {
  const paths = request.updateMask?.paths ?? [];
  if (paths.length === 0) {
    return set;
  }
  const all = (toJson(method.input, request, { useProtoFieldName: true, alwaysEmitImplicit: true }) as { application?: JsonObject }).application ?? {};
  const etag = set["etag"];
  return { ...Object.fromEntries(paths.map((p) => [p, all[p] ?? null])), ...(etag === undefined ? {} : { etag }) };
}
