// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	// callTimeout bounds a call when nothing else is said.
	callTimeout = 10 * time.Second
	// maxAnswer is the most bytes of one answer that are read.
	maxAnswer = 256 << 20
)

// dial returns a connection to the address that a flag names. It is closed with the client.
func (c *client) dial(flag, address string) (*grpc.ClientConn, error) {
	key, err := c.credential()
	if err != nil {
		return nil, err
	}
	secure, err := c.Secure.Credentials(slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, usagef("%s", err)
	}
	conn, err := grpc.NewClient(address,
		grpc.WithPerRPCCredentials(key),
		grpc.WithTransportCredentials(secure),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithUserAgent("clipper/"+c.build.Version),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			timeout := c.Timeout
			if timeout == 0 {
				timeout = callTimeout
			}
			if deadline, ok := ctx.Deadline(); ok {
				timeout = time.Until(deadline).Round(time.Millisecond)
			}
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			if err := invoke(ctx, method, req, resp, conn, opts...); err != nil {
				return &callError{flag: flag, address: address, waited: timeout, err: err}
			}
			return nil
		}))
	if err != nil {
		return nil, usagef("--%s: %s", flag, err)
	}
	c.conns = append(c.conns, conn)
	return conn, nil
}

// credential is an API key or a token, sent with every call; empty for none.
type credential string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (k credential) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if k == "" {
		return nil, nil
	}
	return map[string]string{"authorization": "Bearer " + string(k)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: it is the caller's to decide.
func (credential) RequireTransportSecurity() bool { return false }

// credential returns what the flags say.
func (c *client) credential() (credential, error) {
	if c.APIKey != "" || c.KeyFile == "" {
		return credential(c.APIKey), nil
	}
	text, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return "", usagef("--api-key-file: %s", err)
	}
	return credential(bytes.TrimSpace(text)), nil
}

func (c *client) close() {
	for _, conn := range c.conns {
		_ = conn.Close() // Nothing is in flight.
	}
}

// queries returns a connection for queries and feedback.
func (c *client) queries() (*grpc.ClientConn, error) { return c.dial("address", c.address) }

// admin returns a connection for administration.
func (c *client) admin() (*grpc.ClientConn, error) { return c.dial("admin-address", c.adminAddress) }

func (c *client) models() (clipperv1.ModelServiceClient, error) {
	conn, err := c.admin()
	if err != nil {
		return nil, err
	}
	return clipperv1.NewModelServiceClient(conn), nil
}

func (c *client) applications() (clipperv1.ApplicationServiceClient, error) {
	conn, err := c.admin()
	if err != nil {
		return nil, err
	}
	return clipperv1.NewApplicationServiceClient(conn), nil
}

func (c *client) keys() (clipperv1.KeyServiceClient, error) {
	conn, err := c.admin()
	if err != nil {
		return nil, err
	}
	return clipperv1.NewKeyServiceClient(conn), nil
}

// read returns the text of an argument: the argument itself, the content of the file in "@file",
// or, for "-", standard input.
func (c *client) read(argument string) (text []byte, err error) {
	switch path, isFile := strings.CutPrefix(argument, "@"); {
	case argument == "-":
		text, err = io.ReadAll(c.Stdin)
	case isFile:
		text, err = os.ReadFile(path)
	default:
		text = []byte(argument)
	}
	if err != nil {
		return nil, fmt.Errorf("read the input: %w", err)
	}
	return bytes.TrimSpace(text), nil
}

// readInput returns the JSON text of a query's input.
func (c *client) readInput(argument string) ([]byte, error) {
	text, err := c.read(argument)
	if err == nil && !json.Valid(text) {
		err = usagef("the input is not JSON: expected a list as in '[0.1, 0.2]', a text as in '\"good\"', a number or an object, @FILE, or - for standard input")
	}
	return text, err
}

// parseValue returns an output from the command line: JSON, or else a text that is meant as it is.
func parseValue(text string) (*structpb.Value, error) {
	var v any
	if json.Unmarshal([]byte(text), &v) != nil {
		v = text
	}
	return structpb.NewValue(v)
}

// absolute makes a path absolute, for a server in another directory.
func absolute(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("make a path absolute: %w", err)
	}
	return path, nil
}
