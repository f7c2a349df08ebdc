// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/clipper-serving/clipper/internal/certs"
)

// opsAddresses are where services listen for those who operate them, by default: of `clipper up` and the frontend,
// of the selector, of the abstraction service.
var opsAddresses = []string{"127.0.0.1:1338", "127.0.0.1:1358", "127.0.0.1:1368"}

// maxHealth bounds what is read of an answer, in bytes.
const maxHealth = 64 << 10

type healthCmd struct {
	Address string        `arg:"" optional:"" help:"The ops listener of a service, HOST:PORT. Default: of the service that runs on this machine."`
	Ready   bool          `help:"Ask whether it should get calls, not just whether it lives."`
	Secure  certs.Client  `embed:"" envprefix:"CLIPPER_"`
	Timeout time.Duration `default:"5s" placeholder:"DURATION" help:"How long to wait for the answer. Default: ${default}."`
}

func (healthCmd) Help() string {
	return `For the health checks of containers, in whose images there is no other program. It exits with 0 when the service
lives (--ready: when it is ready), with 1 when it says that it is not, and with 4 when it does not answer.

Examples:

    clipper health
    clipper health --ready 127.0.0.1:1368
    clipper health --ready --tls-ca ca.pem`
}

// webClient returns a client of HTTP listeners, and their scheme.
func webClient(secure certs.Client) (web *http.Client, scheme string, err error) {
	if !secure.Enabled() {
		return &http.Client{Transport: &http.Transport{}}, "http", nil
	}
	cfg, err := secure.Config()
	if err != nil {
		return nil, "", usagef("%s", err)
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}, "https", nil
}

func (h *healthCmd) Run(c *client) error {
	addresses := []string{h.Address}
	if h.Address == "" {
		addresses = opsAddresses
	}
	path := "/healthz"
	if h.Ready {
		path = "/readyz"
	}
	web, scheme, err := webClient(h.Secure)
	if err != nil {
		return err
	}
	defer web.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(c.ctx, h.Timeout)
	defer cancel()
	for _, address := range addresses {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+address+path, nil)
		if err != nil {
			return usagef("%q is no address: want HOST:PORT", address)
		}
		response, err := web.Do(request)
		if err != nil {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(response.Body, maxHealth))
		_ = response.Body.Close()
		if err != nil {
			continue
		}
		answer := strings.TrimSpace(string(text))
		if response.StatusCode != http.StatusOK {
			return &failure{code: ExitFailed, message: fmt.Sprintf("%s says %s: %s", address, response.Status, answer)}
		}
		_, err = fmt.Fprintln(c.Stdout, answer)
		return err
	}
	if c.ctx.Err() != nil {
		return interrupted
	}
	return &failure{code: ExitUnreachable, message: fmt.Sprintf("no service answers at %s: start one, or name its ops listener", strings.Join(addresses, ", "))}
}
