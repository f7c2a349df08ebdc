// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/store"
)

const (
	defaultPage = 100
	maxPage     = 1000
	// forgetTimeout bounds the removal of what was learned by an application that is gone.
	forgetTimeout = time.Minute
)

// applicationService is clipper.v1.ApplicationService.
type applicationService struct {
	clipperv1.UnimplementedApplicationServiceServer
	service *Service
}

// CreateApplication registers an application; it answers queries when the call returns.
func (a applicationService) CreateApplication(ctx context.Context, r *clipperv1.CreateApplicationRequest) (*clipperv1.CreateApplicationResponse, error) {
	s := a.service
	app := proto.CloneOf(r.GetApplication())
	if app == nil {
		return nil, missing("application", "want an application")
	}
	if err := s.complete(ctx, app); err != nil {
		return nil, err
	}
	app.CreateTime = timestamppb.Now()
	app.UpdateTime = app.CreateTime
	created, err := s.put(ctx, app, rand.Uint64(), 0)
	if errors.Is(err, store.ErrConflict) {
		return nil, apierror.New(codes.AlreadyExists, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_EXISTS, "name", "name: there is an application %q already", app.Name)
	}
	if err != nil {
		return nil, s.storeError(ctx, "create application", err)
	}
	return &clipperv1.CreateApplicationResponse{Application: created}, nil
}

// GetApplication returns one application.
func (a applicationService) GetApplication(ctx context.Context, r *clipperv1.GetApplicationRequest) (*clipperv1.GetApplicationResponse, error) {
	app, err := a.service.fresh(ctx, r.GetApplication(), "application")
	if err != nil {
		return nil, err
	}
	return &clipperv1.GetApplicationResponse{Application: app.proto}, nil
}

// ListApplications returns the applications, sorted by name.
func (a applicationService) ListApplications(ctx context.Context, r *clipperv1.ListApplicationsRequest) (*clipperv1.ListApplicationsResponse, error) {
	s := a.service
	size := int(r.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	if size > maxPage {
		return nil, invalid("page_size", "want 1 to %d, or 0 for %d, not %d", maxPage, defaultPage, size)
	}
	after, err := base64.RawURLEncoding.DecodeString(r.GetPageToken())
	if err != nil || len(after) > 0 && !isName(string(after)) {
		return nil, invalid("page_token", "want the next_page_token of an earlier answer, or nothing")
	}
	if err := s.apps.Refresh(ctx); err != nil {
		return nil, s.storeError(ctx, "list applications", err)
	}
	response := &clipperv1.ListApplicationsResponse{}
	for entry := range s.apps.Snapshot().All() {
		if entry.Value.name <= string(after) || !strings.HasPrefix(entry.Value.name, r.GetPrefix()) {
			continue
		}
		if len(response.Applications) == size {
			last := response.Applications[size-1].Name
			response.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(last))
			break
		}
		response.Applications = append(response.Applications, entry.Value.proto)
	}
	return response, nil
}

// updateTries is how often an update without an etag is tried when others change the application too.
const updateTries = 8

// UpdateApplication changes the named fields of an application. What was learned is kept for the models
// that stay, unless the state is to be reset. A policy that replaces another finds the sums that have the
// names of its statistics, and 0 for the others.
func (a applicationService) UpdateApplication(ctx context.Context, r *clipperv1.UpdateApplicationRequest) (*clipperv1.UpdateApplicationResponse, error) {
	s := a.service
	if r.GetApplication() == nil {
		return nil, missing("application", "want an application")
	}
	for range updateTries {
		old, err := s.fresh(ctx, r.Application.Name, "name")
		if err != nil {
			return nil, err
		}
		if r.Application.Etag != "" && r.Application.Etag != old.proto.Etag {
			return nil, errConflict(old.name)
		}
		app := proto.CloneOf(old.proto)
		if err := merge(app, r.Application, r.UpdateMask); err != nil {
			return nil, err
		}
		if err := s.complete(ctx, app); err != nil {
			return nil, err
		}
		app.CreateTime, app.UpdateTime = old.proto.CreateTime, timestamppb.Now()
		incarnation := old.incarnation
		if r.ResetState {
			incarnation = rand.Uint64()
		}
		updated, err := s.put(ctx, app, incarnation, old.revision)
		switch {
		case errors.Is(err, store.ErrConflict):
			if r.Application.Etag != "" {
				return nil, errConflict(old.name)
			}
			continue
		case err != nil:
			return nil, s.storeError(ctx, "update application", err)
		}
		if incarnation != old.incarnation || app.Policy.Name != old.proto.Policy.Name {
			s.log.Info("selection changed", "application", app.Name, "from", old.proto.Policy.Name, "to", app.Policy.Name, "reset", r.ResetState)
		}
		if incarnation != old.incarnation {
			s.forgetLater(ctx, old)
		}
		return &clipperv1.UpdateApplicationResponse{Application: updated}, nil
	}
	return nil, errConflict(r.Application.Name)
}

// DeleteApplication removes an application and everything it learned.
func (a applicationService) DeleteApplication(ctx context.Context, r *clipperv1.DeleteApplicationRequest) (*clipperv1.DeleteApplicationResponse, error) {
	s := a.service
	old, err := s.fresh(ctx, r.GetApplication(), "application")
	if err != nil {
		return nil, err
	}
	if r.Etag != "" && r.Etag != old.proto.Etag {
		return nil, errConflict(old.name)
	}
	expect := old.revision
	if r.Etag == "" {
		expect = 0
	}
	err = s.deps.Documents.Delete(ctx, documents+old.name, expect)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, errNotFound(old.name)
	case errors.Is(err, store.ErrConflict):
		return nil, errConflict(old.name)
	case err != nil:
		return nil, s.storeError(ctx, "delete application", err)
	}
	s.catchUp(ctx)
	s.forgetLater(ctx, old)
	return &clipperv1.DeleteApplicationResponse{}, nil
}

// forgetLater removes what an incarnation has learned, also when the caller no longer waits. What
// remains after a failure is never read again.
func (s *Service) forgetLater(ctx context.Context, app *application) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forgetTimeout)
	defer cancel()
	if err := s.forget(ctx, app); err != nil {
		s.log.Warn("what a deleted application had learned was not removed", "application", app.name, "error", err)
	}
}

// GetSelectionState returns what an application has learned, as its policy reads it now.
func (a applicationService) GetSelectionState(ctx context.Context, r *clipperv1.GetSelectionStateRequest) (*clipperv1.GetSelectionStateResponse, error) {
	s := a.service
	app, err := s.fresh(ctx, r.GetApplication(), "application")
	if err != nil {
		return nil, err
	}
	sums, err := s.deps.Sums.Get(ctx, app.stateKey(r.Context))
	if err != nil {
		return nil, s.storeError(ctx, "read selection state", err)
	}
	all := sums
	if r.Context != "" {
		if all, err = s.deps.Sums.Get(ctx, app.sharedKey); err != nil {
			return nil, s.storeError(ctx, "read selection state", err)
		}
	}
	return app.describe(r.Context, sums, app.learned(all)), nil
}

// fresh returns an application as it is in the store now; field is what named it.
func (s *Service) fresh(ctx context.Context, name, field string) (*application, error) {
	if !isName(name) {
		return nil, invalid(field, "want the name of an application, not %q", shorten(name))
	}
	if err := s.apps.Refresh(ctx); err != nil {
		return nil, s.storeError(ctx, "read application", err)
	}
	return s.application(name)
}

// put writes an application and returns it as it is then; this instance answers with it. Errors are the
// store's.
func (s *Service) put(ctx context.Context, app *clipperv1.Application, incarnation uint64, expect store.Revision) (*clipperv1.Application, error) {
	before := s.replaced(app.Name, expect)
	progress, err := continueCanary(before, app, incarnation)
	if err != nil {
		return nil, err
	}
	value, err := encodeRecord(incarnation, app, progress)
	if err != nil {
		return nil, err
	}
	revision, err := s.deps.Documents.Put(ctx, documents+app.Name, value, expect)
	if err != nil {
		return nil, err
	}
	s.catchUp(ctx)
	s.endCanary(ctx, before, progress)
	app.Etag = etag(revision)
	return app, nil
}

// catchUp lets this instance see what it wrote. When it cannot, the follower will, a little later; what
// was written stays written.
func (s *Service) catchUp(ctx context.Context) {
	if err := s.apps.Refresh(ctx); err != nil {
		s.log.Warn("a change of an application will be seen later", "error", err)
	}
}

func errConflict(name string) error {
	return apierror.New(codes.Aborted, clipperv1.ErrorReason_ERROR_REASON_CONFLICT, "etag", "etag: someone else changed the application %q; read it again", name)
}

// merge sets the fields of the mask, or without one those that are set, in to.
func merge(to, from *clipperv1.Application, mask interface{ GetPaths() []string }) error {
	fields := to.ProtoReflect().Descriptor().Fields()
	paths := slices.Clone(mask.GetPaths())
	if len(paths) == 0 {
		for i := range fields.Len() {
			if f := fields.Get(i); from.ProtoReflect().Has(f) {
				paths = append(paths, string(f.Name()))
			}
		}
		paths = slices.DeleteFunc(paths, immutable)
	}
	for _, path := range paths {
		field := fields.ByTextName(path)
		if field == nil {
			field = fields.ByJSONName(path)
		}
		if field == nil {
			return invalid("update_mask", "there is no field %q, want names of top-level fields", shorten(path))
		}
		if immutable(string(field.Name())) {
			return invalid("update_mask", "the field %q cannot be changed", field.Name())
		}
		if from.ProtoReflect().Has(field) {
			to.ProtoReflect().Set(field, from.ProtoReflect().Get(field))
		} else {
			to.ProtoReflect().Clear(field)
		}
	}
	return nil
}

func immutable(field string) bool {
	switch field {
	case "name", "create_time", "update_time", "etag":
		return true
	}
	return false
}

// shorten keeps what a caller sent from filling a message.
func shorten(s string) string {
	const most = 80
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
