// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
)

// WatchApplications calls update with all applications, sorted by name, at once and after each change, until
// ctx or the service ends. The messages are shared: do not modify them.
func (s *Service) WatchApplications(ctx context.Context, update func([]*clipperv1.Application)) error {
	return s.watchApplications(ctx, func(applications []*clipperv1.Application) error {
		update(applications)
		return nil
	})
}

func (s *Service) watchApplications(ctx context.Context, update func([]*clipperv1.Application) error) error {
	for {
		snapshot := s.apps.Snapshot()
		if snapshot.Synced() {
			applications := make([]*clipperv1.Application, 0, snapshot.Len())
			for entry := range snapshot.All() {
				applications = append(applications, entry.Value.proto)
			}
			if err := update(applications); err != nil {
				return err
			}
		}
		select {
		case <-snapshot.Replaced():
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return errStopped()
		}
	}
}

// selectorService is what frontends ask besides the calls on the exchange.
type selectorService struct {
	internalv1.UnimplementedSelectorServiceServer
	service *Service
}

// WatchApplications sends all applications at once, and again whenever one changes.
func (w selectorService) WatchApplications(_ *internalv1.WatchApplicationsRequest, stream grpc.ServerStreamingServer[internalv1.WatchApplicationsResponse]) error {
	return w.service.watchApplications(stream.Context(), func(applications []*clipperv1.Application) error {
		if err := stream.Send(&internalv1.WatchApplicationsResponse{Applications: applications}); err != nil {
			return fmt.Errorf("send applications: %w", err)
		}
		return nil
	})
}
