// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/loadgen"
)

// HTTP says how to reach an HTTP server.
type HTTP struct {
	// Address is "host:port".
	Address string
	// TLS is nil to speak without.
	TLS *tls.Config
	// Headers go with every request.
	Headers map[string]string
	// Connections bounds the connections; 0 opens as many as there are requests in flight.
	Connections int
}

const (
	// maxAnswer is the most bytes of an answer that are read.
	maxAnswer = 256 << 20
	// maxText is the most bytes of an answer that are shown as an error's message.
	maxText = 200
)

type httpClient struct {
	base    string
	headers map[string]string
	client  *http.Client
}

func newHTTP(h HTTP) *httpClient {
	c := &httpClient{base: "http://" + h.Address, headers: h.Headers}
	if h.TLS != nil {
		c.base = "https://" + h.Address
	}
	c.client = &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: h.TLS, DisableCompression: true, IdleConnTimeout: time.Minute,
			MaxConnsPerHost: h.Connections, MaxIdleConns: 0, MaxIdleConnsPerHost: 1 << 20,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

func (c *httpClient) close() { c.client.CloseIdleConnections() }

// call makes a request and returns the body and the headers of the answer.
func (c *httpClient) call(ctx context.Context, method, path string, headers iter.Seq2[string, string], body []byte) ([]byte, http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, failed("ADDRESS", err.Error())
	}
	for name, value := range c.headers {
		request.Header.Set(name, value)
	}
	if headers != nil {
		for name, value := range headers {
			request.Header.Set(name, value)
		}
	}
	response, err := c.client.Do(request)
	if err != nil {
		return nil, nil, failed("UNAVAILABLE", err.Error())
	}
	defer response.Body.Close() //nolint:errcheck // It was read.
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	switch {
	case err != nil:
		return nil, nil, failed("UNAVAILABLE", err.Error())
	case response.StatusCode != http.StatusOK:
		return nil, nil, problem(response.StatusCode, answer)
	}
	return answer, response.Header, nil
}

// problem returns the error of an answer: a problem detail, an error of the Open Inference Protocol, or
// anything else.
func problem(code int, body []byte) error {
	var p struct {
		Reason string `json:"reason"`
		Detail string `json:"detail"`
		Error  any    `json:"error"`
	}
	_ = json.Unmarshal(body, &p)                    // What is not JSON has no reason.
	if nested, ok := p.Error.(map[string]any); ok { // Servers before problem details.
		p.Reason, _ = nested["reason"].(string)
		p.Error = nested["message"]
	}
	text, _ := p.Error.(string)
	reason := strings.ReplaceAll(strings.ToUpper(http.StatusText(code)), " ", "_")
	if code == http.StatusGatewayTimeout {
		reason = "DEADLINE"
	}
	plain := strings.TrimSpace(string(body[:min(len(body), maxText)])) // Of a proxy, or of whatever else is there.
	return failed(cmp.Or(p.Reason, reason, strconv.Itoa(code)), cmp.Or(p.Detail, text, plain, fmt.Sprintf("status %d", code)))
}

// escape escapes a name for a path.
func escape(name string) string { return url.PathEscape(name) }

// restClient asks over the REST API.
type restClient struct {
	http      *httpClient
	path      string
	signature *oipREST // Its metadata is the same for all protocols.
}

// NewREST returns a client of the REST API.
func NewREST(h HTTP, application string) Client {
	oip := newOIPREST(h, application, "", false)
	return &restClient{http: oip.http, path: "/v1/applications/" + escape(application), signature: oip}
}

func (c *restClient) Close() { c.http.close() }

func (c *restClient) Signature(ctx context.Context) ([]*clipperv1.TensorSpec, error) {
	return c.signature.Signature(ctx)
}

func (c *restClient) Prepare(input Input) (Call, error) {
	text := input.JSON
	if text == nil {
		var err error
		if text, err = naturaljson.AppendTensors(nil, input.Tensors); err != nil {
			return nil, err
		}
	}
	prefix := append([]byte(`{"input":`), text...)
	return func(ctx context.Context, p Params) (loadgen.Answer, error) {
		body := append(make([]byte, 0, len(prefix)+100), prefix...)
		if p.Context != "" {
			body = naturaljson.AppendText(append(body, `,"context":`...), p.Context)
		}
		if p.Priority != 0 {
			body = strconv.AppendUint(append(body, `,"priority":`...), uint64(p.Priority), 10)
		}
		if p.Timeout > 0 {
			body = fmt.Appendf(body, `,"timeout":"%.9fs"`, p.Timeout.Seconds())
		}
		answer, _, err := c.http.call(ctx, "POST", c.path+"/query", nil, append(body, '}'))
		if err != nil {
			return loadgen.Answer{}, err
		}
		var said struct {
			IsDefault     bool   `json:"is_default"`
			DefaultReason string `json:"default_reason"`
			FeedbackID    string `json:"feedback_id"`
			Predictions   []struct {
				Cached bool `json:"cached"`
			} `json:"predictions"`
		}
		if err := json.Unmarshal(answer, &said); err != nil {
			return loadgen.Answer{}, failed("INVALID_ANSWER", "the answer is not JSON: "+err.Error())
		}
		a := loadgen.Answer{FeedbackID: said.FeedbackID}
		if said.IsDefault {
			a.Default = defaultReason(said.DefaultReason)
		}
		for i, p := range said.Predictions {
			a.Cached = p.Cached && (i == 0 || a.Cached)
		}
		return a, nil
	}, nil
}

func (c *restClient) Feedback(ctx context.Context, id string, truth json.RawMessage) error {
	body, err := json.Marshal(map[string]any{"feedback_id": id, "truth": truth})
	if err != nil {
		return failed("INVALID_TRUTH", err.Error())
	}
	_, _, err = c.http.call(ctx, "POST", c.path+"/feedback", nil, body)
	return err
}
