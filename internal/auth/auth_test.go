// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	_ "github.com/clipper-serving/clipper/gen/go/inference" // Its methods are in the table.
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/auth/audit"
	"github.com/clipper-serving/clipper/internal/auth/jwt"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/inprocess"
	"github.com/clipper-serving/clipper/internal/ratelimit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const adminSecret = "an-admin-secret-that-is-long-enough"

// gate returns a gate with an admin key and the given stored keys, whose secrets are their ids.
func gate(t testing.TB, keys ...*clipperv1.Key) (*Gate, *bytes.Buffer) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admin")
	require.NoError(t, os.WriteFile(path, []byte(adminSecret+"\n"), 0o600))
	var lines bytes.Buffer
	log, err := audit.Open("stderr", &lines, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	g, err := New(Config{AdminKeyFile: path}, Deps{Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), Audit: log})
	require.NoError(t, err)
	g.ring.update(stored(keys...))
	return g, &lines
}

func stored(keys ...*clipperv1.Key) []*internalv1.StoredKey {
	var list []*internalv1.StoredKey
	for _, k := range keys {
		sum := sha256.Sum256([]byte(k.Id))
		list = append(list, &internalv1.StoredKey{Key: k, Digest: sum[:]})
	}
	return list
}

func key(id, app string, roles ...clipperv1.Role) *clipperv1.Key {
	return &clipperv1.Key{Id: id, Name: "name of " + id, Roles: roles, Applications: []string{app}}
}

// incoming is the context of a call with a key, or without for "".
func incoming(ctx context.Context, secret string) context.Context {
	if secret == "" {
		return ctx
	}
	return metadata.NewIncomingContext(ctx, metadata.Pairs("authorization", "Bearer "+secret))
}

// Every method of every service that can be at the edge has a rule. The services of containers and policies
// are implemented by others.
func TestRules_complete(t *testing.T) {
	known := map[string]bool{}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		public := f.Package() == "clipper.v1" || f.Package() == "inference" || f.Package().Parent() == "inference" || f.Package().Parent() == "grpc.health"
		for i := range f.Services().Len() {
			service := f.Services().Get(i)
			switch service.Name() {
			case "ModelContainerService", "SelectionPolicyService":
				continue
			}
			for j := range service.Methods().Len() {
				name := "/" + string(service.FullName()) + "/" + string(service.Methods().Get(j).Name())
				known[name] = true
				if public {
					require.NotEqual(t, nobody, ruleOf(name).need, "%s is not in the table", name)
				}
			}
		}
		return true
	})
	require.Greater(t, len(known), 40)
	for name, r := range rules {
		// The Open Inference Protocol and reflection may be served in part.
		if strings.HasPrefix(name, "/clipper.") {
			require.True(t, known[name], "%s does not exist", name)
		}
		if r.queries != nil && name != clipperv1.QueryService_PredictModel_FullMethodName {
			require.NotNil(t, r.application, name)
		}
	}
}

// What the roles allow.
func TestUnary_roles(t *testing.T) {
	const (
		q = clipperv1.Role_ROLE_QUERY
		f = clipperv1.Role_ROLE_FEEDBACK
		d = clipperv1.Role_ROLE_DEPLOY
		a = clipperv1.Role_ROLE_ADMIN
	)
	g, _ := gate(t, key("q", "x", q), key("f", "x", f), key("d", "x", d), key("a", "x", a), key("q*", "*", q), key("d*", "*", d), key("a*", "*", a))
	for _, tt := range []struct {
		method  string
		request any
		allowed string // The keys that are, separated by spaces.
	}{
		{clipperv1.QueryService_Query_FullMethodName, &clipperv1.QueryRequest{Application: "x"}, "q a q* a*"},
		{clipperv1.QueryService_Query_FullMethodName, &clipperv1.QueryRequest{Application: "y"}, "q* a*"},
		{clipperv1.QueryService_QueryBatch_FullMethodName, &clipperv1.QueryBatchRequest{Application: "x"}, "q a q* a*"},
		{clipperv1.FeedbackService_Feedback_FullMethodName, &clipperv1.FeedbackRequest{Application: "x"}, "f a a*"},
		{clipperv1.ApplicationService_GetApplication_FullMethodName, &clipperv1.GetApplicationRequest{Application: "x"}, "d a d* a*"},
		{clipperv1.ApplicationService_CreateApplication_FullMethodName, &clipperv1.CreateApplicationRequest{Application: &clipperv1.Application{Name: "x"}}, "d a d* a*"},
		{clipperv1.ApplicationService_UpdateApplication_FullMethodName, &clipperv1.UpdateApplicationRequest{Application: &clipperv1.Application{Name: "y"}}, "d* a*"},
		{clipperv1.ApplicationService_ListApplications_FullMethodName, &clipperv1.ListApplicationsRequest{}, "d* a*"},
		{clipperv1.ModelService_DeployModel_FullMethodName, &clipperv1.DeployModelRequest{}, "d* a*"},
		{clipperv1.KeyService_ListKeys_FullMethodName, &clipperv1.ListKeysRequest{}, "a*"},
		{"/inference.GRPCInferenceService/ServerMetadata", nil, "q f d a q* d* a*"},
		{"/clipper.v1.QueryService/Unheard", nil, ""},
	} {
		for _, id := range []string{"q", "f", "d", "a", "q*", "d*", "a*"} {
			called := false
			_, err := g.Unary(incoming(t.Context(), id), tt.request, &grpc.UnaryServerInfo{FullMethod: tt.method}, func(context.Context, any) (any, error) {
				called = true
				return nil, nil
			})
			allowed := strings.Contains(" "+tt.allowed+" ", " "+id+" ")
			require.Equal(t, allowed, called, "%s %v by %s", tt.method, tt.request, id)
			if !allowed {
				require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED, apierror.Reason(err))
			}
		}
	}
}

func call(ctx context.Context, g *Gate, method string, request any) error {
	_, err := g.Unary(ctx, request, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) { return nil, nil })
	return err
}

func TestUnary_credentials(t *testing.T) {
	past, soon := timestamppb.New(time.Now().Add(-time.Second)), timestamppb.New(time.Now().Add(time.Hour))
	expired, fresh := key("expired", "*", clipperv1.Role_ROLE_QUERY), key("fresh", "*", clipperv1.Role_ROLE_QUERY)
	expired.ExpireTime, fresh.ExpireTime = past, soon
	g, _ := gate(t, expired, fresh)
	rotated := stored(fresh)
	for secret, until := range map[string]*timestamppb.Timestamp{"old": past, "overlapping": soon} {
		k := stored(key("r-"+secret, "*", clipperv1.Role_ROLE_QUERY))[0]
		sum := sha256.Sum256([]byte(secret))
		k.PreviousDigest, k.PreviousExpireTime = sum[:], until
		rotated = append(rotated, k)
	}
	g.ring.update(append(rotated, stored(expired)...))
	for _, tt := range []struct {
		name   string
		header metadata.MD
		code   codes.Code
		reason string
	}{
		{"none", nil, codes.Unauthenticated, refusedMissing},
		{"bearer", metadata.Pairs("authorization", "Bearer fresh"), codes.OK, ""},
		{"bearer in any case", metadata.Pairs("authorization", "bEARER  fresh"), codes.OK, ""},
		{"x-api-key", metadata.Pairs("x-api-key", "fresh"), codes.OK, ""},
		{"admin", metadata.Pairs("x-api-key", adminSecret), codes.OK, ""},
		{"overlapping", metadata.Pairs("x-api-key", "overlapping"), codes.OK, ""},
		{"rotated", metadata.Pairs("x-api-key", "old"), codes.Unauthenticated, refusedExpired},
		{"expired", metadata.Pairs("x-api-key", "expired"), codes.Unauthenticated, refusedExpired},
		{"wrong", metadata.Pairs("x-api-key", "wrong"), codes.Unauthenticated, refusedInvalid},
		{"digest", metadata.Pairs("x-api-key", string(rotated[0].Digest)), codes.Unauthenticated, refusedInvalid},
		{"both", metadata.Pairs("x-api-key", "fresh", "authorization", "Bearer fresh"), codes.Unauthenticated, refusedInvalid},
		{"twice", metadata.Pairs("x-api-key", "fresh", "x-api-key", "fresh"), codes.Unauthenticated, refusedInvalid},
		{"other scheme", metadata.Pairs("authorization", "Basic fresh"), codes.Unauthenticated, refusedInvalid},
		{"empty", metadata.Pairs("authorization", "Bearer "), codes.Unauthenticated, refusedInvalid},
		{"long", metadata.Pairs("x-api-key", strings.Repeat("x", maxCredential+1)), codes.Unauthenticated, refusedInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := 0.0
			if tt.reason != "" {
				before = testutil.ToFloat64(g.metrics.refused.WithLabelValues(tt.reason))
			}
			err := call(metadata.NewIncomingContext(t.Context(), tt.header), g, clipperv1.QueryService_Query_FullMethodName, &clipperv1.QueryRequest{Application: "x"})
			require.Equal(t, tt.code, status.Code(err), err)
			if tt.reason != "" {
				require.Equal(t, before+1, testutil.ToFloat64(g.metrics.refused.WithLabelValues(tt.reason)))
				require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, apierror.Reason(err))
			}
		})
	}
	for _, method := range []string{"/grpc.health.v1.Health/Check", "/inference.GRPCInferenceService/ServerLive"} {
		require.NoError(t, call(t.Context(), g, method, nil), method)
	}
	g.ring.update(nil)
	err := call(incoming(t.Context(), "fresh"), g, clipperv1.QueryService_Query_FullMethodName, &clipperv1.QueryRequest{})
	require.Equal(t, codes.Unauthenticated, status.Code(err), "revoked")
}

func TestUnary_register(t *testing.T) {
	g, _ := gate(t, key("d", "*", clipperv1.Role_ROLE_DEPLOY), key("q", "*", clipperv1.Role_ROLE_QUERY))
	for token, code := range map[string]codes.Code{"d": codes.OK, "q": codes.PermissionDenied, "x": codes.Unauthenticated, "": codes.Unauthenticated} {
		err := call(t.Context(), g, clipperv1.ModelService_RegisterReplica_FullMethodName, &clipperv1.RegisterReplicaRequest{Token: token})
		require.Equal(t, code, status.Code(err), token)
	}
}

func TestAuthenticate_token(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: private.Public(), KeyID: "1"}}})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "jwks.json")
	require.NoError(t, os.WriteFile(path, set, 0o600))
	cfg := Config{JWT: jwt.Config{
		Issuer: "https://issuer.example", Audience: []string{"clipper"}, JWKS: path, Algorithms: []string{"ES256"},
		Refresh: time.Hour, RolesClaim: "roles", ApplicationsClaim: "apps",
	}}
	g, err := New(cfg, Deps{Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	require.NoError(t, err)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private}, (&jose.SignerOptions{}).WithHeader("kid", "1"))
	require.NoError(t, err)
	token := func(exp time.Time) string {
		payload, err := json.Marshal(map[string]any{
			"iss": "https://issuer.example", "aud": "clipper", "sub": "alice", "exp": exp.Unix(), "roles": "query", "apps": "x",
		})
		require.NoError(t, err)
		signed, err := signer.Sign(payload)
		require.NoError(t, err)
		text, err := signed.CompactSerialize()
		require.NoError(t, err)
		return text
	}
	good := token(time.Now().Add(time.Hour))
	c, err := g.authenticate(t.Context(), good)
	require.NoError(t, err)
	require.Equal(t, "token:alice", c.ID)
	require.True(t, c.may(ruleOf(clipperv1.QueryService_Query_FullMethodName), "x"))
	require.False(t, c.may(ruleOf(clipperv1.QueryService_Query_FullMethodName), "y"))
	again, err := g.authenticate(t.Context(), good)
	require.NoError(t, err)
	if again != c { // The first token had the keys read, so it was verified under the generation before.
		c, err = g.authenticate(t.Context(), good)
		require.NoError(t, err)
		require.Same(t, again, c, "it is verified once")
	}
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = g.authenticate(t.Context(), good) }))
	_, err = g.authenticate(t.Context(), token(time.Now().Add(-time.Hour)))
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	_, err = g.authenticate(t.Context(), good[:len(good)-4])
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	require.Equal(t, 1.0, testutil.ToFloat64(g.metrics.refused.WithLabelValues(refusedExpired)))

	// One that is remembered expires all the same.
	sum := sha256.Sum256([]byte(good))
	seen, ok := g.seen.GetIfPresent(sum)
	require.True(t, ok)
	old := *seen.caller
	old.expires = time.Now()
	g.seen.Set(sum, &seenToken{caller: &old, generation: seen.generation})
	_, err = g.authenticate(t.Context(), good)
	require.Equal(t, codes.Unauthenticated, status.Code(err))
}

func TestParseKeys(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	hash := sha256.Sum256([]byte(secret))
	for _, tt := range []struct {
		name, text, want string
	}{
		{"secret", `keys: [{name: a, secret: ` + secret + `, roles: [query], applications: [x], limits: {queries_per_second: 5}}]`, ""},
		{"digest", fmt.Sprintf(`keys: [{name: a, sha256: %x, roles: [query], applications: ["*"], expires: 2030-01-01T00:00:00Z}]`, hash), ""},
		{"none", `keys: []`, ""},
		{"not YAML", `{`, "not YAML"},
		{"unknown key", `keys: [{nam: a}]`, "not YAML"},
		{"no name", `keys: [{secret: ` + secret + `, roles: [query], applications: [x]}]`, "name"},
		{"no secret", `keys: [{name: a, roles: [query], applications: [x]}]`, "secret or sha256"},
		{"short", `keys: [{name: a, secret: hunter2, roles: [query], applications: [x]}]`, "at least 32"},
		{"spaces", `keys: [{name: a, secret: "` + secret + ` x", roles: [query], applications: [x]}]`, "header"},
		{"digest of another length", `keys: [{name: a, sha256: abcd, roles: [query], applications: [x]}]`, "64 hexadecimal"},
		{"role", `keys: [{name: a, secret: ` + secret + `, roles: [root], applications: [x]}]`, "roles"},
		{"no role", `keys: [{name: a, secret: ` + secret + `, applications: [x]}]`, "role"},
		{"limits", `keys: [{name: a, secret: ` + secret + `, roles: [query], applications: [x], limits: {burst: 1}}]`, "limits.burst"},
		{"twice", `keys: [{name: a, secret: ` + secret + `, roles: [query], applications: [x]}, {name: b, secret: ` + secret + `, roles: [query], applications: [x]}]`, "another key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			keys, err := parseKeys([]byte(tt.text))
			if tt.want != "" {
				require.ErrorContains(t, err, tt.want)
				require.NotContains(t, err.Error(), secret)
				return
			}
			require.NoError(t, err)
			if tt.name != "none" {
				require.Equal(t, "key:a", keys[hash].ID)
			}
		})
	}
}

func TestFiles_readAgain(t *testing.T) {
	g, _ := gate(t)
	const next = "another-admin-secret-that-is-long-enough"
	path := g.ring.files[0].path
	require.NoError(t, os.WriteFile(path, []byte("short"), 0o600))
	g.ring.readFiles()
	_, err := g.authenticate(t.Context(), adminSecret)
	require.NoError(t, err, "what cannot be used leaves the keys as they were")
	require.NoError(t, os.WriteFile(path, []byte(next), 0o600))
	g.ring.readFiles()
	_, err = g.authenticate(t.Context(), next)
	require.NoError(t, err)
	_, err = g.authenticate(t.Context(), adminSecret)
	require.Equal(t, codes.Unauthenticated, status.Code(err))
}

func TestAuthenticate_beforeTheKeysAreKnown(t *testing.T) {
	g, _ := gate(t)
	g.ring.known = false
	_, err := g.authenticate(t.Context(), "some")
	require.Equal(t, codes.Unavailable, status.Code(err))
	_, err = g.authenticate(t.Context(), adminSecret)
	require.NoError(t, err)
	require.Error(t, g.Ready(t.Context()))
}

func TestDisabled(t *testing.T) {
	g, err := New(Config{}, Deps{Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	require.NoError(t, err)
	require.NoError(t, call(t.Context(), g, clipperv1.KeyService_ListKeys_FullMethodName, &clipperv1.ListKeysRequest{}))
	require.NoError(t, call(t.Context(), g, "/other.Service/Method", nil))
	require.NoError(t, g.Ready(t.Context()))
	require.Empty(t, g.Loops(nil))
	limiter := ratelimit.New(&clipperv1.Limits{QueriesPerSecond: 1}, nil)
	g.Limiter = func(string) *ratelimit.Limiter { return limiter }
	require.NoError(t, call(t.Context(), g, clipperv1.QueryService_Query_FullMethodName, &clipperv1.QueryRequest{}))
	require.Error(t, call(t.Context(), g, clipperv1.QueryService_Query_FullMethodName, &clipperv1.QueryRequest{}), "limits of applications hold")
}

func TestUnary_limits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := key("k", "*", clipperv1.Role_ROLE_QUERY, clipperv1.Role_ROLE_FEEDBACK)
		k.Limits = &clipperv1.Limits{QueriesPerSecond: 10, Burst: 10}
		g, _ := gate(t, k)
		small := ratelimit.New(&clipperv1.Limits{Concurrency: 2}, nil)
		g.Limiter = func(app string) *ratelimit.Limiter {
			if app == "small" {
				return small
			}
			return nil
		}
		ctx := incoming(t.Context(), "k")
		ask := func(app string, n int) error {
			return call(ctx, g, clipperv1.QueryService_QueryBatch_FullMethodName, &clipperv1.QueryBatchRequest{Application: app, Queries: make([]*clipperv1.BatchQuery, n)})
		}
		require.NoError(t, ask("x", 10))
		err := ask("x", 5)
		require.Equal(t, codes.ResourceExhausted, status.Code(err))
		require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_RATE_LIMITED, apierror.Reason(err))
		require.Equal(t, 500*time.Millisecond, apierror.ToProto(err).GetRetryAfter().AsDuration())
		require.NoError(t, call(ctx, g, clipperv1.FeedbackService_Feedback_FullMethodName, &clipperv1.FeedbackRequest{}), "feedback does not count")
		g.ring.update(stored(k)) // Another key has changed.
		require.Error(t, ask("x", 5), "the limiter goes on")
		time.Sleep(500 * time.Millisecond)
		require.NoError(t, ask("x", 5))
		require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE, apierror.Reason(ask("x", 11)))

		time.Sleep(time.Second)
		_, err = g.Unary(ctx, &clipperv1.QueryRequest{Application: "small"}, &grpc.UnaryServerInfo{FullMethod: clipperv1.QueryService_Query_FullMethodName},
			func(context.Context, any) (any, error) { return nil, ask("small", 2) })
		require.Equal(t, codes.ResourceExhausted, status.Code(err), "one is in flight")
		require.NoError(t, ask("small", 2))
		require.Equal(t, 2.0, testutil.ToFloat64(g.metrics.limited.WithLabelValues("application", "concurrency")))
		require.Equal(t, 21.0, testutil.ToFloat64(g.metrics.limited.WithLabelValues("key", "rate")))
	})
}

func TestAudit(t *testing.T) {
	g, lines := gate(t, key("d", "x", clipperv1.Role_ROLE_DEPLOY))
	ctx := WithRemote(incoming(t.Context(), "d"), "192.0.2.1:1")
	require.NoError(t, call(ctx, g, clipperv1.ApplicationService_DeleteApplication_FullMethodName, &clipperv1.DeleteApplicationRequest{Application: "x"}))
	require.Error(t, call(ctx, g, clipperv1.ModelService_DeployModel_FullMethodName, &clipperv1.DeployModelRequest{Version: &clipperv1.ModelVersion{
		Model: "m", Version: "1", Container: &clipperv1.Container{Environment: map[string]string{"PASSWORD": "hunter2"}},
	}}))
	require.Error(t, call(t.Context(), g, clipperv1.KeyService_RevokeKey_FullMethodName, &clipperv1.RevokeKeyRequest{Key: "id"}))
	require.NoError(t, call(ctx, g, clipperv1.ApplicationService_GetApplication_FullMethodName, &clipperv1.GetApplicationRequest{Application: "x"}))
	got := strings.Split(strings.TrimSpace(lines.String()), "\n")
	require.Len(t, got, 3)
	require.Contains(t, got[0], `"caller":"key:d","name":"name of d","peer":"192.0.2.1:1","method":"/clipper.v1.ApplicationService/DeleteApplication","resource":"applications/x","outcome":"OK"`)
	require.Contains(t, got[1], `"caller":"key:d"`)
	require.Contains(t, got[1], `"resource":"models/m/versions/1","outcome":"PermissionDenied","reason":"PERMISSION_DENIED"`)
	require.Contains(t, got[2], `"caller":"anonymous"`)
	require.NotContains(t, lines.String(), "hunter2")
}

// streaming answers each query when it is told to.
type streaming struct {
	clipperv1.UnimplementedQueryServiceServer
	answer chan struct{}
}

func (s streaming) QueryStream(stream grpc.BidiStreamingServer[clipperv1.QueryStreamRequest, clipperv1.QueryStreamResponse]) error {
	for {
		r, err := stream.Recv()
		if err == io.EOF { //nolint:errorlint // It is what a stream returns.
			return nil
		}
		if err != nil {
			return err
		}
		<-s.answer
		if err := stream.Send(&clipperv1.QueryStreamResponse{Sequence: r.Sequence}); err != nil {
			return err
		}
	}
}

func TestStream(t *testing.T) {
	k := key("k", "x", clipperv1.Role_ROLE_QUERY)
	k.Limits = &clipperv1.Limits{Concurrency: 1}
	g, _ := gate(t, k)
	conn := inprocess.New([]grpc.UnaryServerInterceptor{g.Unary}, []grpc.StreamServerInterceptor{g.Stream})
	service := streaming{answer: make(chan struct{}, 10)}
	clipperv1.RegisterQueryServiceServer(conn, service)
	client := clipperv1.NewQueryServiceClient(conn)

	nameless, err := client.QueryStream(t.Context())
	require.NoError(t, err)
	_, err = nameless.Recv()
	require.Equal(t, codes.Unauthenticated, status.Code(err))

	ctx := metadata.NewOutgoingContext(t.Context(), metadata.Pairs("x-api-key", "k"))
	stream, err := client.QueryStream(ctx)
	require.NoError(t, err)
	ask := func(sequence uint64, app string) {
		t.Helper()
		require.NoError(t, stream.Send(&clipperv1.QueryStreamRequest{Sequence: sequence, Query: &clipperv1.QueryRequest{Application: app}}))
	}
	reason := func(sequence uint64) clipperv1.ErrorReason {
		t.Helper()
		r, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, sequence, r.Sequence)
		return r.GetResult().GetError().GetReason()
	}
	for i := range uint64(3) { // An answer makes room for the next.
		service.answer <- struct{}{}
		ask(i, "x")
		require.Zero(t, reason(i))
	}
	ask(7, "y")
	require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED, reason(7), "one message is refused, not the stream")
	limiter := g.ring.find(new(sha256.Sum256([]byte("k")))).limiter
	require.Nil(t, limiter.Acquire(1))
	ask(8, "x")
	require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_RATE_LIMITED, reason(8))
	limiter.Release(1)

	g.ring.update(nil)
	ask(9, "x")
	_, err = stream.Recv()
	require.Equal(t, codes.Unauthenticated, status.Code(err), "a revoked key ends streams that are open")
}

func TestStream_endReleases(t *testing.T) {
	k := key("k", "x", clipperv1.Role_ROLE_QUERY)
	k.Limits = &clipperv1.Limits{Concurrency: 1}
	g, _ := gate(t, k)
	conn := inprocess.New(nil, []grpc.StreamServerInterceptor{g.Stream})
	ended := make(chan struct{})
	clipperv1.RegisterQueryServiceServer(conn, received{ended: ended})
	ctx := metadata.NewOutgoingContext(t.Context(), metadata.Pairs("x-api-key", "k"))
	stream, err := clipperv1.NewQueryServiceClient(conn).QueryStream(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&clipperv1.QueryStreamRequest{Query: &clipperv1.QueryRequest{Application: "x"}}))
	_, err = stream.Recv()
	require.Error(t, err)
	<-ended
	require.Nil(t, g.ring.find(new(sha256.Sum256([]byte("k")))).limiter.Acquire(1))
}

// received takes one query and fails.
type received struct {
	clipperv1.UnimplementedQueryServiceServer
	ended chan struct{}
}

func (r received) QueryStream(stream grpc.BidiStreamingServer[clipperv1.QueryStreamRequest, clipperv1.QueryStreamResponse]) error {
	_, err := stream.Recv()
	close(r.ended)
	if err == nil {
		err = status.Error(codes.Internal, "broken")
	}
	return err
}

func TestOperators(t *testing.T) {
	g, _ := gate(t, key("q", "x", clipperv1.Role_ROLE_QUERY))
	h := g.Operators(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	for _, tt := range []struct {
		path, secret string
		code         int
	}{
		{"/healthz", "", 200},
		{"/readyz", "", 200},
		{"/metrics", "", 401},
		{"/metrics", "wrong", 401},
		{"/metrics", "q", 200},
		{"/debug/pprof/", "q", 403},
		{"/debug/pprof/", adminSecret, 200},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, tt.path, nil)
		if tt.secret != "" {
			r.Header.Set("X-Api-Key", tt.secret)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, tt.code, w.Code, tt)
	}
}

func TestOutgoing(t *testing.T) {
	ctx := Outgoing(t.Context(), http.Header{"Authorization": {"Bearer a"}, "X-Api-Key": {"b"}, "Cookie": {"c"}})
	md, _ := metadata.FromOutgoingContext(ctx)
	require.Equal(t, metadata.Pairs("authorization", "Bearer a", "x-api-key", "b"), md)
	require.Equal(t, t.Context(), Outgoing(t.Context(), http.Header{}))
	require.Empty(t, Strip(md))
	require.Len(t, md, 2)
}

func FuzzCredentials(f *testing.F) {
	f.Add("Bearer x", "", 1, 0)
	f.Add("Bearer  eyJ.x.y", "k", 1, 1)
	f.Add("bearer", "\x00", 2, 1)
	f.Fuzz(func(t *testing.T, authorization, apiKey string, n, m int) {
		repeat := func(s string, n int) (list []string) {
			for range max(min(n, 3), 0) {
				list = append(list, s)
			}
			return list
		}
		text, err := parse(repeat(authorization, n), repeat(apiKey, m))
		if err != nil {
			require.Empty(t, text)
			return
		}
		require.NotEmpty(t, text)
		require.LessOrEqual(t, len(text), maxCredential)
		require.NotContains(t, text, " ")
		again, err := parse([]string{"Bearer " + text}, nil)
		require.NoError(t, err)
		require.Equal(t, text, again)
	})
}

func BenchmarkAuthenticate_key(b *testing.B) {
	secret := "clp_abcdefghijkl_" + strings.Repeat("x", 43)
	g, _ := gate(b, key(secret, "x", clipperv1.Role_ROLE_QUERY))
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.authenticate(ctx, secret); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnary_key(b *testing.B) {
	k := key("clp_abcdefghijkl_"+strings.Repeat("x", 43), "x", clipperv1.Role_ROLE_QUERY)
	k.Limits = &clipperv1.Limits{QueriesPerSecond: 1e9, Burst: 1e9, Concurrency: 100}
	g, _ := gate(b, k)
	ctx := incoming(b.Context(), k.Id)
	request, info := &clipperv1.QueryRequest{Application: "x"}, &grpc.UnaryServerInfo{FullMethod: clipperv1.QueryService_Query_FullMethodName}
	handler := func(context.Context, any) (any, error) { return nil, nil }
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Unary(ctx, request, info, handler); err != nil {
			b.Fatal(err)
		}
	}
}
