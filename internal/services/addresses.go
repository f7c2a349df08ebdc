// SPDX-License-Identifier: Apache-2.0

package services

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/clipper-serving/clipper/abstraction"
	"github.com/clipper-serving/clipper/internal/app"
	"github.com/clipper-serving/clipper/internal/certs"
	"github.com/clipper-serving/clipper/internal/exchange"
)

// pickOne keeps to one instance while it lives, and spreads those who ask over all.
const pickOne = `{"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": true}}]}`

// dial returns a connection to another service, which need not be there yet: to one of its
// instances, and to another one when that is gone. The function also tells it of addresses beside
// the given ones; it may be called from any goroutine, by one at a time.
func dial(a *app.App, name string, addresses []string, files certs.Client) (conn *grpc.ClientConn, also func(addresses []string), err error) {
	secure, err := files.Credentials(a.Log.With("calls", name))
	if err != nil {
		return nil, nil, fmt.Errorf("connection to the %s: %w", name, err)
	}
	instances := manual.NewBuilderWithScheme("instances")
	also = func(more []string) { instances.UpdateState(stateOf(slices.Concat(addresses, more))) }
	instances.InitialState(stateOf(addresses))
	conn, err = grpc.NewClient(instances.Scheme()+":///clipper", append(exchange.DialOptions(),
		grpc.WithTransportCredentials(secure),
		grpc.WithResolvers(instances),
		grpc.WithDefaultServiceConfig(pickOne),
	)...)
	if err != nil {
		return nil, nil, fmt.Errorf("address of the %s: %w", name, err)
	}
	a.Defer("connection to the "+name, conn.Close)
	return conn, also, nil
}

func stateOf(addresses []string) resolver.State {
	var s resolver.State
	for _, address := range slices.Compact(slices.Sorted(slices.Values(addresses))) {
		if address == "" { // A list without an address, as it is written in the environment.
			continue
		}
		// Its certificate must name the host that was dialled, not the name of this resolver.
		at := resolver.Address{Addr: address, ServerName: address}
		if strings.HasPrefix(address, "unix:") {
			at.ServerName = "localhost"
		}
		s.Endpoints = append(s.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{at}})
	}
	return s
}

// instance returns what the other instances are to know of one that listens at the address; nil when
// the store is one that it cannot share.
func (c *Abstraction) instance(listens string) (*abstraction.Instance, error) {
	if !c.shared() {
		return nil, nil
	}
	i := &abstraction.Instance{Address: c.Advertise, Lease: c.InstanceLease}
	if i.Address == "" {
		i.Address = listens
		// A unix socket has no host.
		if host, port, err := net.SplitHostPort(listens); err == nil && net.ParseIP(host).IsUnspecified() {
			name, err := os.Hostname()
			if err != nil {
				return nil, fmt.Errorf("say with --advertise where the other instances reach this one: %w", err)
			}
			i.Address = net.JoinHostPort(name, port)
		}
	}
	return i, nil
}
