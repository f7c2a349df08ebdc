// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/exchange"
)

// peer is another instance, with a link that is kept while it lives.
type peer struct {
	address string
	calls   *exchange.Client
	models  clipperv1.ModelServiceClient
	stop    func() // fails what is under way, and returns when nothing runs any more
}

func (s *Service) connectPeer(address string) (*peer, error) {
	secure := s.deps.Instance.TLS
	if secure == nil {
		secure = insecure.NewCredentials()
	}
	conn, err := grpc.NewClient(address, append(exchange.DialOptions(), grpc.WithTransportCredentials(secure))...)
	if err != nil {
		return nil, fmt.Errorf("connect instance: %w", err)
	}
	p := &peer{address: address, calls: exchange.NewClient("instance "+address+" of the abstraction service", conn, s.log), models: clipperv1.NewModelServiceClient(conn)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		defer func() { _ = conn.Close() }()
		_ = p.calls.Run(ctx) // It fails only what is pending.
	})
	p.stop = func() {
		cancel()
		running.Wait()
	}
	return p, nil
}

// meet opens links to instances that are new. It holds s.mu.
func (s *Service) meet(o *outlook) {
	for _, m := range o.members {
		if m.Address == o.self || s.peers[m.Address] != nil {
			continue
		}
		p, err := s.connectPeer(m.Address)
		if err != nil {
			s.log.Error("instance cannot be reached", "instance", m.Address, "error", err)
			continue
		}
		s.peers[m.Address] = p
	}
}

// part closes the links to instances that are gone; queries that wait for them look elsewhere. The
// table that leads to them must have been replaced. It holds s.mu.
func (s *Service) part(o *outlook) {
	live := map[string]bool{}
	for _, m := range o.members {
		live[m.Address] = true
	}
	for address, p := range s.peers {
		if !live[address] {
			delete(s.peers, address)
			s.passing.Go(p.stop)
		}
	}
}
