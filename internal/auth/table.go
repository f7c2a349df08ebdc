// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// need is what a call needs of its caller.
type need uint8

const (
	nobody   need = iota // Nobody may: it is what a method has that is not in the table.
	everyone             // No credentials.
	anyone               // Credentials, whatever they allow.
	query
	feedback
	deploy
	admin
)

var needNames = [...]string{nobody: "-", everyone: "none", anyone: "any", query: "query", feedback: "feedback", deploy: "deploy", admin: "admin"}

func (n need) String() string { return needNames[n] }

// rule says what a method needs.
type rule struct {
	need need
	// application returns the application that a message is about. Nil: the method is about no single one,
	// which needs the role for all of them.
	application func(message any) string
	// queries returns how many queries a message is. Nil: it is not limited.
	queries func(message any) int
	// refuse returns the answer for one message of a stream that is refused. Nil: the stream ends.
	refuse func(message any, err error) proto.Message
	// audited says that the method changes something.
	audited bool
}

func one(any) int { return 1 }

// rules is what every method of every service at the edge needs. What the Open Inference Protocol makes of a call,
// another call to a service of ours with the same credentials, is counted and audited there.
var rules = map[string]*rule{
	"/grpc.health.v1.Health/Check":                                             {need: everyone},
	"/grpc.health.v1.Health/List":                                              {need: everyone},
	"/grpc.health.v1.Health/Watch":                                             {need: everyone},
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":                {need: anyone},
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo":           {need: anyone},
	clipperv1.QueryService_Query_FullMethodName:                                {need: query, application: named, queries: one},
	clipperv1.QueryService_QueryBatch_FullMethodName:                           {need: query, application: named, queries: batch},
	clipperv1.QueryService_QueryStream_FullMethodName:                          {need: query, application: ofQuery, queries: one, refuse: refuseQuery},
	clipperv1.QueryService_PredictModel_FullMethodName:                         {need: query, queries: batch},
	clipperv1.FeedbackService_Feedback_FullMethodName:                          {need: feedback, application: named},
	clipperv1.FeedbackService_FeedbackBatch_FullMethodName:                     {need: feedback, application: named},
	clipperv1.FeedbackService_FeedbackStream_FullMethodName:                    {need: feedback, application: ofFeedback, refuse: refuseFeedback},
	clipperv1.ApplicationService_CreateApplication_FullMethodName:              {need: deploy, application: ofApplication, audited: true},
	clipperv1.ApplicationService_GetApplication_FullMethodName:                 {need: deploy, application: named},
	clipperv1.ApplicationService_ListApplications_FullMethodName:               {need: deploy},
	clipperv1.ApplicationService_UpdateApplication_FullMethodName:              {need: deploy, application: ofApplication, audited: true},
	clipperv1.ApplicationService_DeleteApplication_FullMethodName:              {need: deploy, application: named, audited: true},
	clipperv1.ApplicationService_GetSelectionState_FullMethodName:              {need: deploy, application: named},
	clipperv1.ApplicationService_ExplainSelection_FullMethodName:               {need: deploy, application: named},
	clipperv1.ApplicationService_ListContexts_FullMethodName:                   {need: deploy, application: named},
	clipperv1.ApplicationService_ExportSelectionState_FullMethodName:           {need: deploy, application: named},
	clipperv1.ApplicationService_ResetSelectionState_FullMethodName:            {need: deploy, application: named, audited: true},
	clipperv1.ApplicationService_GetModelCorrelations_FullMethodName:           {need: deploy, application: named},
	clipperv1.ApplicationService_GetCanary_FullMethodName:                      {need: deploy, application: named},
	clipperv1.ModelService_DeployModel_FullMethodName:                          {need: deploy, audited: true},
	clipperv1.ModelService_GetModel_FullMethodName:                             {need: deploy},
	clipperv1.ModelService_ListModels_FullMethodName:                           {need: deploy},
	clipperv1.ModelService_GetModelVersion_FullMethodName:                      {need: deploy},
	clipperv1.ModelService_UpdateModelVersion_FullMethodName:                   {need: deploy, audited: true},
	clipperv1.ModelService_SetCurrentVersion_FullMethodName:                    {need: deploy, audited: true},
	clipperv1.ModelService_DeleteModelVersion_FullMethodName:                   {need: deploy, audited: true},
	clipperv1.ModelService_DeleteModel_FullMethodName:                          {need: deploy, audited: true},
	clipperv1.ModelService_GetBatching_FullMethodName:                          {need: deploy},
	clipperv1.ModelService_RegisterReplica_FullMethodName:                      {need: deploy, audited: true},
	clipperv1.ModelService_GetModelRepository_FullMethodName:                   {need: deploy},
	clipperv1.ModelService_ReadLogs_FullMethodName:                             {need: deploy},
	clipperv1.KeyService_CreateKey_FullMethodName:                              {need: admin, audited: true},
	clipperv1.KeyService_GetKey_FullMethodName:                                 {need: admin},
	clipperv1.KeyService_ListKeys_FullMethodName:                               {need: admin},
	clipperv1.KeyService_RotateKey_FullMethodName:                              {need: admin, audited: true},
	clipperv1.KeyService_RevokeKey_FullMethodName:                              {need: admin, audited: true},
	"/inference.GRPCInferenceService/ServerLive":                               {need: everyone},
	"/inference.GRPCInferenceService/ServerReady":                              {need: everyone},
	"/inference.GRPCInferenceService/ServerMetadata":                           {need: anyone},
	"/inference.GRPCInferenceService/ModelReady":                               {need: query, application: ofModel},
	"/inference.GRPCInferenceService/ModelMetadata":                            {need: query, application: ofModel},
	"/inference.GRPCInferenceService/ModelConfig":                              {need: query, application: ofModel},
	"/inference.GRPCInferenceService/ModelStatistics":                          {need: query, application: ofModel},
	"/inference.GRPCInferenceService/ModelInfer":                               {need: query, application: ofModel},
	"/inference.GRPCInferenceService/ModelStreamInfer":                         {need: query, application: ofModel},
	"/inference.GRPCInferenceService/RepositoryIndex":                          {need: deploy},
	"/inference.GRPCInferenceService/RepositoryModelLoad":                      {need: deploy},
	"/inference.GRPCInferenceService/RepositoryModelUnload":                    {need: deploy},
	"/inference.GRPCInferenceService/SystemSharedMemoryStatus":                 {need: admin},
	"/inference.GRPCInferenceService/SystemSharedMemoryRegister":               {need: admin, audited: true},
	"/inference.GRPCInferenceService/SystemSharedMemoryUnregister":             {need: admin, audited: true},
	"/inference.GRPCInferenceService/CudaSharedMemoryStatus":                   {need: admin},
	"/inference.GRPCInferenceService/CudaSharedMemoryRegister":                 {need: admin, audited: true},
	"/inference.GRPCInferenceService/CudaSharedMemoryUnregister":               {need: admin, audited: true},
	"/inference.GRPCInferenceService/TraceSetting":                             {need: admin, audited: true},
	"/inference.GRPCInferenceService/LogSettings":                              {need: admin, audited: true},
	"/inference.model_repository.ModelRepositoryService/RepositoryIndex":       {need: deploy},
	"/inference.model_repository.ModelRepositoryService/RepositoryModelLoad":   {need: deploy},
	"/inference.model_repository.ModelRepositoryService/RepositoryModelUnload": {need: deploy},
}

// unknown is the rule of a method that is not in the table.
var unknown = &rule{}

func ruleOf(method string) *rule {
	if r := rules[method]; r != nil {
		return r
	}
	return unknown
}

// named returns the application of a message that names it in a field of its own.
func named(m any) string {
	if r, ok := m.(interface{ GetApplication() string }); ok {
		return r.GetApplication()
	}
	return ""
}

// ofApplication returns the name of the application in a message.
func ofApplication(m any) string {
	if r, ok := m.(interface{ GetApplication() *clipperv1.Application }); ok {
		return r.GetApplication().GetName()
	}
	return ""
}

func ofQuery(m any) string {
	if r, ok := m.(*clipperv1.QueryStreamRequest); ok {
		return r.GetQuery().GetApplication()
	}
	return ""
}

func ofFeedback(m any) string {
	if r, ok := m.(*clipperv1.FeedbackStreamRequest); ok {
		return r.GetFeedback().GetApplication()
	}
	return ""
}

// ofModel returns the model of a message of the Open Inference Protocol, where applications are models.
func ofModel(m any) string {
	switch r := m.(type) {
	case interface{ GetModelName() string }:
		return r.GetModelName()
	case interface{ GetName() string }:
		return r.GetName()
	}
	return ""
}

func batch(m any) int {
	switch r := m.(type) {
	case *clipperv1.QueryBatchRequest:
		return len(r.GetQueries())
	case *clipperv1.PredictModelRequest:
		return len(r.GetRows())
	}
	return 1
}

func refuseQuery(m any, err error) proto.Message {
	r, _ := m.(*clipperv1.QueryStreamRequest)
	return &clipperv1.QueryStreamResponse{
		Sequence: r.GetSequence(),
		Result:   &clipperv1.QueryResult{Result: &clipperv1.QueryResult_Error{Error: apierror.ToProto(err)}},
	}
}

func refuseFeedback(m any, err error) proto.Message {
	r, _ := m.(*clipperv1.FeedbackStreamRequest)
	return &clipperv1.FeedbackStreamResponse{
		Sequence: r.GetSequence(),
		Result:   &clipperv1.FeedbackResult{Result: &clipperv1.FeedbackResult_Error{Error: apierror.ToProto(err)}},
	}
}

// resource says what a call is about, by the names in it, for the audit log.
func resource(m any) string {
	var parts []string
	add := func(kind, name string) {
		if name != "" {
			parts = append(parts, kind+"/"+shorten(name))
		}
	}
	add("applications", named(m))
	add("applications", ofApplication(m))
	switch r := m.(type) {
	case *clipperv1.DeployModelRequest:
		add("models", r.GetVersion().GetModel())
		add("versions", r.GetVersion().GetVersion())
	case *clipperv1.CreateKeyRequest:
		add("keys", r.GetKey().GetName())
	case *clipperv1.CreateKeyResponse:
		add("keys", r.GetKey().GetId())
	case interface{ GetKey() string }:
		add("keys", r.GetKey())
	case interface{ GetModel() string }:
		add("models", r.GetModel())
		if v, ok := m.(interface{ GetVersion() string }); ok {
			add("versions", v.GetVersion())
		}
	case interface{ GetModelName() string }:
		add("models", r.GetModelName())
	}
	return strings.Join(parts, "/")
}

// maxShown is how much of a text of the caller is shown, in bytes.
const maxShown = 64

func shorten(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}

// roleNeeds is what each role meets.
var roleNeeds = map[clipperv1.Role]need{
	clipperv1.Role_ROLE_QUERY: query, clipperv1.Role_ROLE_FEEDBACK: feedback,
	clipperv1.Role_ROLE_DEPLOY: deploy, clipperv1.Role_ROLE_ADMIN: admin,
}

// denied returns the error for a caller that may not make a call.
func denied(c *Caller, r *rule, application string) error {
	if r.need == nobody {
		return apierror.New(codes.PermissionDenied, clipperv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED, "", "nobody may call this method")
	}
	where := "all applications (*)"
	if r.application != nil {
		where = "the application " + `"` + shorten(application) + `"`
	}
	return apierror.New(codes.PermissionDenied, clipperv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED, "",
		"%s may not do this: it needs the role %s for %s", c, r.need, where)
}
