// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"google.golang.org/grpc/metadata"
)

// Names of metadata and, in any case of letters, of HTTP headers.
const (
	authorization = "authorization"
	apiKey        = "x-api-key"
)

// maxCredential is the longest key or token, in bytes.
const maxCredential = 8 << 10

var (
	errNone      = errors.New("the call has no credentials: send `authorization: Bearer KEY` or `x-api-key: KEY`")
	errMalformed = errors.New("the credentials cannot be read: want one of `authorization: Bearer KEY` and `x-api-key: KEY`, once")
)

// credential returns the key or token that a call came with.
func credential(ctx context.Context) (string, error) {
	return parse(metadata.ValueFromIncomingContext(ctx, authorization), metadata.ValueFromIncomingContext(ctx, apiKey))
}

// parse returns the credential in the values of the two headers.
func parse(authorization, apiKey []string) (string, error) {
	var text string
	switch {
	case len(authorization) == 0 && len(apiKey) == 0:
		return "", errNone
	case len(authorization)+len(apiKey) != 1:
		return "", errMalformed
	case len(apiKey) == 1:
		text = apiKey[0]
	default:
		scheme, rest, _ := strings.Cut(authorization[0], " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return "", errMalformed
		}
		text = strings.TrimLeft(rest, " ")
	}
	if text == "" || len(text) > maxCredential {
		return "", errMalformed
	}
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c > '~' {
			return "", errMalformed
		}
	}
	return text, nil
}

// Outgoing returns the context of a call to a service behind HTTP, with the credentials of the request.
func Outgoing(ctx context.Context, header http.Header) context.Context {
	var pairs []string
	for _, value := range header["Authorization"] {
		pairs = append(pairs, authorization, value)
	}
	for _, value := range header["X-Api-Key"] {
		pairs = append(pairs, apiKey, value)
	}
	if pairs == nil {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

// Strip returns metadata without credentials, for calls that a service makes for its caller: what is behind
// the edge has no use for them.
func Strip(md metadata.MD) metadata.MD {
	if md[authorization] == nil && md[apiKey] == nil {
		return md
	}
	md = md.Copy()
	delete(md, authorization)
	delete(md, apiKey)
	return md
}
