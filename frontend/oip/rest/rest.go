// SPDX-License-Identifier: Apache-2.0

// Package rest serves the Open Inference Protocol, version 2, over REST: the routes, the JSON, the
// binary tensors, the compression and the errors that its clients expect. What a call means is the
// business of the service behind the connection that it is given; the caller's credentials go with
// each call.
//
// Elements of tensors go from the text of a body into bytes in one pass, and binary tensors are parts
// of the body, not copies. Memory is bounded by the limit of a body, compressed or not.
package rest

import (
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/internal/auth"
)

// Config bounds requests.
type Config struct {
	// MaxBody is the largest body in bytes, as sent and expanded.
	MaxBody int64
	// BodyTimeout is the time that a client has to send a body.
	BodyTimeout time.Duration
}

// Handler serves the paths /v2 and below. Safe for concurrent use.
type Handler struct {
	cfg    Config
	client inference.GRPCInferenceServiceClient
	log    *slog.Logger
}

var _ http.Handler = (*Handler)(nil)

// New returns a handler that calls the service behind conn, which must not keep a request after its
// answer.
func New(cfg Config, conn grpc.ClientConnInterface, log *slog.Logger) (*Handler, error) {
	if cfg.MaxBody <= 0 || cfg.BodyTimeout <= 0 {
		return nil, fmt.Errorf("configure the Open Inference Protocol: body of %d bytes in %v: want more than nothing of both", cfg.MaxBody, cfg.BodyTimeout)
	}
	return &Handler{cfg: cfg, client: inference.NewGRPCInferenceServiceClient(conn), log: log.With("component", "oip rest")}, nil
}

// Serves reports whether a path is one for a Handler.
func Serves(path string) bool {
	return path == "/v2" || strings.HasPrefix(path, "/v2/")
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	serve, place, err := find(r)
	if err == nil {
		r = r.WithContext(auth.WithRemote(auth.Outgoing(r.Context(), r.Header), r.RemoteAddr))
		err = serve(h, w, r, place)
	}
	if err != nil {
		writeError(w, err)
	}
}

func (h *Handler) server(w http.ResponseWriter, r *http.Request, _ place) error {
	server, err := h.client.ServerMetadata(r.Context(), &inference.ServerMetadataRequest{})
	if err != nil {
		return err
	}
	server.Extensions = append(server.Extensions, "binary_tensor_data") // Which is of REST alone.
	return writeJSON(w, r, appendMessage(nil, server))
}

func (h *Handler) live(w http.ResponseWriter, r *http.Request, _ place) error {
	server, err := h.client.ServerLive(r.Context(), &inference.ServerLiveRequest{})
	switch {
	case err != nil:
		return err
	case !server.GetLive():
		return unavailable("the server is stopping")
	}
	return writeJSON(w, r, []byte(`{"live":true}`))
}

func (h *Handler) ready(w http.ResponseWriter, r *http.Request, _ place) error {
	server, err := h.client.ServerReady(r.Context(), &inference.ServerReadyRequest{})
	switch {
	case err != nil:
		return err
	case !server.GetReady():
		return unavailable("the server is not ready")
	}
	// The protocol's text prints one name in its example and the other in its schema.
	return writeJSON(w, r, []byte(`{"ready":true,"live":true}`))
}

func (h *Handler) metadata(w http.ResponseWriter, r *http.Request, p place) error {
	model, err := h.client.ModelMetadata(r.Context(), &inference.ModelMetadataRequest{Name: p.model, Version: p.version})
	if err != nil {
		return err
	}
	return writeJSON(w, r, appendMessage(nil, model))
}

func (h *Handler) modelReady(w http.ResponseWriter, r *http.Request, p place) error {
	model, err := h.client.ModelReady(r.Context(), &inference.ModelReadyRequest{Name: p.model, Version: p.version})
	switch {
	case err != nil:
		return err
	case !model.GetReady():
		return unavailable("model " + strconv.Quote(shorten(p.model)) + " is not ready")
	}
	b := naturaljson.AppendText([]byte(`{"name":`), p.model)
	return writeJSON(w, r, append(b, `,"ready":true}`...))
}

func (h *Handler) config(w http.ResponseWriter, r *http.Request, p place) error {
	model, err := h.client.ModelConfig(r.Context(), &inference.ModelConfigRequest{Name: p.model, Version: p.version})
	if err != nil {
		return err
	}
	return writeJSON(w, r, appendMessage(nil, model.GetConfig()))
}

func (h *Handler) statistics(w http.ResponseWriter, r *http.Request, p place) error {
	stats, err := h.client.ModelStatistics(r.Context(), &inference.ModelStatisticsRequest{Name: p.model, Version: p.version})
	if err != nil {
		return err
	}
	return writeJSON(w, r, appendMessage(nil, stats))
}
