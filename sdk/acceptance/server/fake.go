// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/alecthomas/kong"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/clipper-serving/clipper/frontend"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/inprocess"
	"github.com/clipper-serving/clipper/sdk/acceptance"
)

// apiKey is what `secure` wants.
const apiKey = "clipper-acceptance-key"

// canned answers with what a healthy Clipper does not say. Safe for concurrent use.
type canned struct {
	clipperv1.UnimplementedQueryServiceServer
	clipperv1.UnimplementedFeedbackServiceServer
	errors map[string]error // By application.

	mu       sync.Mutex
	attempts map[string]int
}

func newCanned(l *acceptance.List) (*canned, error) {
	c := &canned{errors: map[string]error{}, attempts: map[string]int{}}
	for _, k := range l.Cases {
		if application, ok := k.Request["application"].(string); ok && k.Server == "canned" && k.Error != nil {
			err, bad := statusOf(k.Error)
			if bad != nil {
				return nil, fmt.Errorf("case %q: %w", k.Name, bad)
			}
			c.errors[application] = err
		}
	}
	return c, nil
}

// statusOf returns an error of the list as a status.
func statusOf(e *acceptance.Error) (_, bad error) {
	var code codes.Code
	if err := code.UnmarshalJSON([]byte(`"` + e.Code + `"`)); err != nil {
		return nil, err
	}
	var details []protoadapt.MessageV1
	if e.Reason != "" {
		info := &errdetails.ErrorInfo{Reason: e.Reason, Domain: apierror.Domain}
		if e.Field != "" {
			info.Metadata = map[string]string{"field": e.Field}
		}
		details = append(details, info)
	}
	if ms, ok := e.RetryAfterMS.(float64); ok {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Duration(ms) * time.Millisecond)})
	}
	st, err := status.New(code, e.Message).WithDetails(details...)
	if err != nil {
		return nil, err
	}
	return st.Err(), nil
}

// Query implements clipperv1.QueryServiceServer.
func (c *canned) Query(ctx context.Context, req *clipperv1.QueryRequest) (*clipperv1.QueryResponse, error) {
	n, err := c.answer(ctx, req.GetApplication(), req.GetId())
	if err != nil {
		return nil, err
	}
	return &clipperv1.QueryResponse{Id: req.GetId(), Outputs: []*clipperv1.Tensor{{
		DataType: clipperv1.DataType_DATA_TYPE_INT64, Data: []byte{byte(n), 0, 0, 0, 0, 0, 0, 0},
	}}}, nil
}

// Feedback implements clipperv1.FeedbackServiceServer.
func (c *canned) Feedback(ctx context.Context, req *clipperv1.FeedbackRequest) (*clipperv1.FeedbackResponse, error) {
	if _, err := c.answer(ctx, req.GetApplication(), req.GetId()+req.GetContext()); err != nil {
		return nil, err
	}
	return &clipperv1.FeedbackResponse{Duplicate: true}, nil
}

// answer counts an attempt and returns its number, from 1, or the error that it gets.
func (c *canned) answer(ctx context.Context, application, id string) (int, error) {
	c.mu.Lock()
	c.attempts[id]++
	n := c.attempts[id]
	c.mu.Unlock()
	switch application {
	case "flaky":
		if n > 2 {
			return n, nil
		}
		return 0, apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "attempt %d", n)
	case "flaky-overload":
		return 0, apierror.Overloaded(12*time.Millisecond, "attempt %d", n)
	case "never":
		<-ctx.Done()
		return 0, apierror.From(ctx.Err())
	case "secure":
		return 1, authorize(ctx)
	}
	if err, ok := c.errors[application]; ok {
		return 0, err
	}
	return 0, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application",
		"application: no case of the list for this server has %q", application)
}

var sdkAgent = regexp.MustCompile(`^clipper-[a-z+]+/[0-9]`)

// authorize refuses a call without the key, and one that is not an SDK's.
func authorize(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if !slices.Contains(md.Get("authorization"), "Bearer "+apiKey) && !slices.Contains(md.Get("x-api-key"), apiKey) {
		err, bad := statusOf(&acceptance.Error{Code: "UNAUTHENTICATED", Reason: "UNAUTHENTICATED", Message: "send an API key"})
		return cmp.Or(bad, err)
	}
	if agent := md.Get("user-agent"); len(agent) == 0 || !sdkAgent.MatchString(agent[0]) {
		return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "user-agent", "user-agent: it is %q, want clipper-<language>/<version>", agent)
	}
	return nil
}

// serveFakes serves them until the process ends, and says where.
func serveFakes(l *acceptance.List, dir string, a *addresses) error {
	fake, err := newCanned(l)
	if err != nil {
		return err
	}
	plain := grpc.NewServer()
	if a.CannedGRPC, err = serveGRPC(plain, fake); err != nil {
		return err
	}
	conn := inprocess.New(nil, nil)
	register(conn, fake)
	var cfg frontend.Config
	if err := kong.ApplyDefaults(&cfg); err != nil {
		return fmt.Errorf("configure REST: %w", err)
	}
	rest, err := frontend.NewQueryHandler(cfg, conn)
	if err != nil {
		return err
	}
	listener, err := listen()
	if err != nil {
		return err
	}
	a.CannedHTTP = "http://" + listener.Addr().String()
	go func() { _ = (&http.Server{Handler: rest, ReadHeaderTimeout: time.Minute}).Serve(listener) }()

	tlsConfig, err := certificates(dir, a)
	if err != nil {
		return err
	}
	a.APIKey = apiKey
	a.SecureGRPC, err = serveGRPC(grpc.NewServer(grpc.Creds(credentials.NewTLS(tlsConfig))), fake)
	return err
}

func register(r grpc.ServiceRegistrar, fake *canned) {
	clipperv1.RegisterQueryServiceServer(r, fake)
	clipperv1.RegisterFeedbackServiceServer(r, fake)
}

func serveGRPC(s *grpc.Server, fake *canned) (address string, _ error) {
	register(s, fake)
	listener, err := listen()
	if err != nil {
		return "", err
	}
	go func() { _ = s.Serve(listener) }() // Until the process ends.
	return listener.Addr().String(), nil
}

func listen() (net.Listener, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It is at once.
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return listener, nil
}

// certificates makes an authority with a certificate for the server and one for clients, writes what
// clients need to dir, and returns the server's side.
func certificates(dir string, a *addresses) (*tls.Config, error) {
	authorityKey, authority, err := certificate("acceptance authority", nil, nil, &x509.Certificate{IsCA: true, KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true})
	if err != nil {
		return nil, err
	}
	serverKey, server, err := certificate("acceptance server", authorityKey, authority, &x509.Certificate{
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return nil, err
	}
	clientKey, client, err := certificate("acceptance client", authorityKey, authority, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(clientKey)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	a.CAFile, a.CertFile, a.KeyFile = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "client.pem"), filepath.Join(dir, "client-key.pem")
	for _, f := range []struct {
		path, kind string
		bytes      []byte
	}{{a.CAFile, "CERTIFICATE", authority.Raw}, {a.CertFile, "CERTIFICATE", client.Raw}, {a.KeyFile, "PRIVATE KEY", key}} {
		if err := os.WriteFile(f.path, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.bytes}), 0o600); err != nil {
			return nil, fmt.Errorf("write a certificate: %w", err)
		}
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{server.Raw}, PrivateKey: serverKey}},
		ClientCAs:    pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}, nil
}

// certificate makes a key and a certificate for it, signed by an authority, or by itself when there is none. Each
// needs a name of its own: one with its authority's counts as signed by itself.
func certificate(name string, authorityKey *ecdsa.PrivateKey, authority, template *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, fmt.Errorf("make a serial number: %w", err)
	}
	template.SerialNumber = serial
	template.Subject = pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if authority == nil {
		authorityKey, authority = key, template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, &key.PublicKey, authorityKey)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate: %w", err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("read a certificate: %w", err)
	}
	return key, parsed, nil
}
