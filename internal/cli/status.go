// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"sync"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

type statusCmd struct {
	Address string `env:"CLIPPER_ADDRESS" default:"127.0.0.1:1347" placeholder:"HOST:PORT" help:"Where queries and feedback go (gRPC)."`
	adminOptions
}

func (s *statusCmd) apply(c *client) {
	s.adminOptions.apply(c)
	c.address = s.Address
}

func (statusCmd) Help() string {
	return `It exits with 0 when every service is ready, with 1 when one is not, and with 4 when one cannot be reached.

Examples:

    clipper status
    clipper status --json`
}

// serviceStatus is what is known of one service.
type serviceStatus struct {
	Service string `json:"service"`
	Address string `json:"address,omitempty"` // Where it was asked.
	State   string `json:"state"`             // "serving", "not serving" or "unreachable".
	Message string `json:"message,omitempty"`

	err error
}

func (s *serviceStatus) set(err error) {
	s.State, s.err = "serving", err
	if err == nil {
		return
	}
	d := describe(err)
	s.State, s.Message = "not serving", d.Message
	if d.ExitCode == ExitUnreachable {
		s.State = "unreachable"
	}
}

func (s *statusCmd) Run(c *client) error {
	services := []*serviceStatus{
		{Service: "frontend", Address: c.address},
		{Service: "administration", Address: c.adminAddress},
		{Service: "selector"},
		{Service: "abstraction"},
	}
	var models []*clipperv1.Model
	var applications []*clipperv1.Application
	var wg sync.WaitGroup
	queries, err := c.queries()
	if err != nil {
		return err
	}
	admin, err := c.admin()
	if err != nil {
		return err
	}
	wg.Go(func() { services[0].set(c.health(healthpb.NewHealthClient(queries))) })
	wg.Go(func() { services[1].set(c.health(healthpb.NewHealthClient(admin))) })
	wg.Wait()
	// The two behind are asked through administration; when that is not there, nothing is known of them.
	if services[1].State != "unreachable" {
		applications, err = c.listApplications()
		services[2].set(err)
		models, err = c.listModels()
		services[3].set(err)
	} else {
		services = services[:2]
	}
	if c.JSON {
		err = c.statusJSON(services, models, applications)
	} else {
		err = c.statusTables(services, models, applications)
	}
	if err != nil {
		return err
	}
	return firstError(services)
}

// firstError returns the error of the first service that cannot be reached, else of the first that
// does not serve.
func firstError(services []*serviceStatus) error {
	var first error
	for _, s := range services {
		if s.State == "unreachable" {
			return s.err
		}
		if first == nil {
			first = s.err
		}
	}
	return first
}

// health asks a server whether it is ready.
func (c *client) health(service healthpb.HealthClient) error {
	response, err := service.Check(c.ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	if s := response.GetStatus(); s != healthpb.HealthCheckResponse_SERVING {
		return &failure{code: ExitFailed, message: "it is not ready: it starts, stops, or cannot reach a service that it needs (its log says which)"}
	}
	return nil
}

func (c *client) statusTables(services []*serviceStatus, models []*clipperv1.Model, applications []*clipperv1.Application) error {
	t := &table{header: []string{"SERVICE", "ADDRESS", "STATE", "MESSAGE"}, state: 2}
	for _, s := range services {
		t.add(s.Service, s.Address, s.State, s.Message)
	}
	if err := c.writeTable(t); err != nil {
		return err
	}
	if len(models) > 0 {
		c.blankLine()
		if err := c.writeTable(modelTable(models)); err != nil {
			return err
		}
	}
	if len(applications) > 0 {
		c.blankLine()
		return c.writeTable(applicationTable(applications))
	}
	return nil
}

func (c *client) statusJSON(services []*serviceStatus, models []*clipperv1.Model, applications []*clipperv1.Application) error {
	document := struct {
		Services     []*serviceStatus  `json:"services"`
		Models       []json.RawMessage `json:"models"`
		Applications []json.RawMessage `json:"applications"`
	}{services, []json.RawMessage{}, []json.RawMessage{}}
	for _, m := range models {
		text, err := marshal(m)
		if err != nil {
			return err
		}
		document.Models = append(document.Models, text)
	}
	for _, a := range applications {
		text, err := marshal(a)
		if err != nil {
			return err
		}
		document.Applications = append(document.Applications, text)
	}
	return c.writeJSON(document)
}
