// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/clipper-serving/clipper/abstraction/autoscale"
	"github.com/clipper-serving/clipper/abstraction/catalog"
	"github.com/clipper-serving/clipper/abstraction/metrics"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/instances"
)

// reportTimeout bounds the question to another instance what its versions do.
const reportTimeout = 2 * time.Second

// reports is what versions do, by UID, at all instances together.
type reports map[string]*report

type report struct {
	signature *clipperv1.Signature
	replicas  []replicaStatus
	runs      bool     // at least at one instance
	failures  []string // why instances that should run it cannot
	silent    []string // instances that should know and did not answer
	batching  *clipperv1.GetBatchingResponse
	demand    autoscale.Demand // at all of them together
}

func (r reports) of(uid string) *report {
	if r[uid] == nil {
		r[uid] = &report{demand: autoscale.Demand{Burstiness: 1, Idle: -1}}
	}
	return r[uid]
}

// add adds what an instance says.
func (r reports) add(all []*internalv1.VersionReport) {
	for _, one := range all {
		to := r.of(one.Uid)
		if one.Failure != "" {
			to.failures = append(to.failures, one.Failure)
			continue
		}
		to.runs = true
		if to.signature == nil {
			to.signature = one.Signature
		}
		to.explain(one.Batching)
		to.demand.Add(reportedDemand(one.Demand))
		for _, replica := range one.Replicas {
			to.replicas = append(to.replicas, replicaStatus{Replica: replica.Replica, leaving: replica.Leaving, failing: replica.Failing})
		}
	}
}

// report asks all instances that have to do with versions what these do there. One that does not
// answer is named in the reports.
func (s *Service) report(ctx context.Context, versions []*catalog.Version) reports {
	return s.inquire(ctx, versions, false)
}

// explain returns how a version's queries are batched, at all instances together; nil when it does not
// run.
func (s *Service) explain(ctx context.Context, v *catalog.Version) *clipperv1.GetBatchingResponse {
	return s.inquire(ctx, []*catalog.Version{v}, true).of(v.UID).batching
}

// inquire asks them, and how they batch if that is wanted.
func (s *Service) inquire(ctx context.Context, versions []*catalog.Version, batching bool) reports {
	uids := make([]string, len(versions))
	for i, v := range versions {
		uids[i] = v.UID
	}
	all := reports{}
	all.add(s.reportHere(uids, batching))
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	var mu sync.Mutex
	var asking sync.WaitGroup
	for address, at := range s.elsewhere(versions) {
		asking.Go(func() {
			answer, err := at.peer.describe(ctx, at.uids, batching)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				all.add(answer)
				return
			}
			for _, uid := range at.uids {
				all.of(uid).silent = append(all.of(uid).silent, address)
			}
		})
	}
	asking.Wait()
	return all
}

// where is what another instance is to be asked.
type where struct {
	peer *peer
	uids []string
}

// elsewhere returns the other instances at which the versions run or should, by address.
func (s *Service) elsewhere(versions []*catalog.Version) map[string]*where {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.look()
	if s.group == nil || o == nil {
		return nil
	}
	all := map[string]*where{}
	for _, v := range versions {
		p := o.place(v, instances.Absent)
		for _, m := range o.members {
			peer := s.peers[m.Address]
			if peer == nil || !slices.Contains(p.homes, m.Address) && m.Versions[v.UID] == instances.Absent {
				continue
			}
			if all[m.Address] == nil {
				all[m.Address] = &where{peer: peer}
			}
			all[m.Address].uids = append(all[m.Address].uids, v.UID)
		}
	}
	return all
}

func (p *peer) describe(ctx context.Context, uids []string, batching bool) ([]*internalv1.VersionReport, error) {
	payload, err := p.calls.Try(ctx, internalv1.Method_METHOD_DESCRIBE, &internalv1.DescribeVersions{Uids: uids, Batching: batching})
	if err != nil {
		return nil, err
	}
	answer := &internalv1.VersionReports{}
	return answer.Reports, proto.Unmarshal(payload, answer)
}

// reportHere returns what versions do at this instance; those that have nothing to do with it are
// left out.
func (s *Service) reportHere(uids []string, batching bool) []*internalv1.VersionReport {
	wanted := make(map[string]bool, len(uids))
	for _, uid := range uids {
		wanted[uid] = true
	}
	var here []*version
	var all []*internalv1.VersionReport
	s.mu.Lock()
	for _, versions := range []map[name]*version{s.running, s.closing} {
		for _, v := range versions {
			if wanted[v.uid] {
				here = append(here, v)
			}
		}
	}
	for n, err := range s.unusable {
		if m := s.catalog.View().Model(n.model); m != nil {
			if doc := m.Version(n.version); doc != nil && wanted[doc.UID] {
				all = append(all, &internalv1.VersionReport{Uid: doc.UID, Failure: err.Error()})
			}
		}
	}
	s.mu.Unlock()
	for _, v := range here {
		all = append(all, v.report(batching))
	}
	return all
}

// report returns what the version does here.
func (v *version) report(batching bool) *internalv1.VersionReport {
	r := &internalv1.VersionReport{Uid: v.uid, Signature: v.serving.Signature(), Demand: demandReport(v.serving.Demand())}
	if batching {
		r.Batching = v.serving.Batching()
		r.Batching.Scaling, _ = v.scaling.now()
		for _, replica := range r.Batching.Replicas {
			if v.service.group != nil {
				replica.Instance = v.service.group.Address()
			}
		}
	}
	for _, status := range v.status() {
		if v.service.group != nil {
			status.Instance = v.service.group.Address()
		}
		r.Replicas = append(r.Replicas, &internalv1.ReplicaReport{Replica: status.Replica, Leaving: status.leaving, Failing: status.failing})
	}
	return r
}

// describe fills in what is known about a version.
func (r *report) describe(spec *clipperv1.ModelVersion) {
	if r.signature != nil {
		spec.Signature = r.signature
	}
	slices.SortStableFunc(r.replicas, func(a, b replicaStatus) int {
		return strings.Compare(a.Instance, b.Instance)
	})
	spec.State, spec.StateMessage, spec.ReplicaStatus = summarize(wantedReplicas(spec, r.replicas), r.replicas, spec.Container)
	if isAutoscaled(spec) && spec.GetReplicas() == 0 {
		spec.StateMessage = "nobody asks, so there is no replica: the next query starts one"
	}
	switch {
	case len(r.silent) > 0:
		spec.State = clipperv1.ModelState_MODEL_STATE_UNSPECIFIED
		spec.StateMessage = sentence("the state is not known: no answer from the instance "+strings.Join(r.silent, " and the instance "), spec.StateMessage)
	case r.runs:
		if len(r.failures) > 0 {
			spec.StateMessage = sentence(spec.StateMessage, "one of its homes cannot run it: "+r.failures[0])
		}
	case len(r.failures) > 0:
		spec.State, spec.StateMessage = clipperv1.ModelState_MODEL_STATE_FAILED, "the version cannot be run by this server: "+r.failures[0]
	default:
		spec.State, spec.StateMessage = clipperv1.ModelState_MODEL_STATE_STARTING, "the version is not running yet"
	}
}

// explain adds how an instance batches.
func (r *report) explain(b *clipperv1.GetBatchingResponse) {
	switch {
	case b == nil:
		return
	case r.batching == nil:
		r.batching = b
		return
	}
	if r.batching.Scaling == nil {
		r.batching.Scaling = b.Scaling
	}
	r.batching.Replicas = append(r.batching.Replicas, b.Replicas...)
	slices.SortStableFunc(r.batching.Replicas, func(a, b *clipperv1.ReplicaBatching) int {
		return strings.Compare(a.Instance, b.Instance)
	})
	if r.batching.Counters == nil {
		r.batching.Counters = b.Counters
	} else if c := b.Counters; c != nil {
		metrics.AddCounters(r.batching.Counters, c)
	}
	sum, one := r.batching.Queue, b.Queue
	sum.Rows += one.Rows
	sum.InFlightRows += one.InFlightRows
	sum.DrainRate += one.DrainRate
	sum.Overloaded = sum.Overloaded || one.Overloaded
	if one.Delay.AsDuration() > sum.Delay.AsDuration() {
		sum.Delay = one.Delay
	}
	if sum.Dropped == nil {
		sum.Dropped = one.Dropped
		return
	}
	for reason, rows := range one.Dropped {
		sum.Dropped[reason] += rows
	}
}

// wantedReplicas is how many replicas are to be ready. Those that register beside others come on top;
// a version whose replicas all register says how many it expects.
func wantedReplicas(spec *clipperv1.ModelVersion, replicas []replicaStatus) int {
	if spec.GetReplicas() == 0 {
		return 0
	}
	registered := 0
	for _, r := range replicas {
		if r.Registered && !r.leaving {
			registered++
		}
	}
	if spec.Container.GetRegistered() != nil {
		return max(int(spec.GetReplicas()), registered)
	}
	return int(spec.GetReplicas()) + registered
}
