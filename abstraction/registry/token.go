// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc/codes"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/config"
)

// TokenConfig says which token replicas must present to register. The zero value asks for none.
type TokenConfig struct {
	Token config.Secret `name:"register-token" placeholder:"TOKEN" help:"Token that a container must present to register itself as a replica. Better in the environment or in a file: others see a command line."`
	File  string        `name:"register-token-file" placeholder:"FILE" help:"File with such tokens, one a line, each of which is accepted. It is read at each registration, so a token can be replaced without a restart."`
}

// Validate refuses a file that cannot be read, or has no token.
func (c TokenConfig) Validate() error {
	_, err := c.tokens()
	return err
}

func (c TokenConfig) tokens() ([]string, error) {
	var tokens []string
	if c.Token != "" {
		tokens = append(tokens, string(c.Token))
	}
	if c.File != "" {
		text, err := os.ReadFile(c.File)
		if err != nil {
			return nil, fmt.Errorf("tokens of registration: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" {
				tokens = append(tokens, line)
			}
		}
		if len(tokens) == 0 {
			return nil, errors.New("tokens of registration: " + c.File + " has none")
		}
	}
	return tokens, nil
}

// Admit refuses a replica that does not present one of the tokens, if any is asked for. A file that
// cannot be read refuses every one.
func (r *Registry) Admit(c TokenConfig, token string) error {
	if c == (TokenConfig{}) {
		return nil
	}
	tokens, err := c.tokens()
	if err != nil {
		r.log.Error("no replica can register", "cause", err)
		return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "",
			"the tokens of registration cannot be read: see the log of the abstraction service")
	}
	// Hashes have one length, which the comparison would tell otherwise; every token is compared.
	given, match := sha256.Sum256([]byte(token)), 0
	for _, t := range tokens {
		want := sha256.Sum256([]byte(t))
		match |= subtle.ConstantTimeCompare(given[:], want[:])
	}
	if match == 1 {
		return nil
	}
	if token == "" {
		return apierror.New(codes.Unauthenticated, clipperv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, "token",
			"token: a replica must present a token to register: give its container CLIPPER_REGISTER_TOKEN or CLIPPER_REGISTER_TOKEN_FILE")
	}
	return apierror.New(codes.Unauthenticated, clipperv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, "token",
		"token: this is not a token of registration: compare the container's CLIPPER_REGISTER_TOKEN with that of the abstraction service")
}
