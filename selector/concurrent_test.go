// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/store/storetest"
)

// TestConcurrentWriters sends random feedback, much of it several times and to different instances, to several
// selectors on one Redis. A policy is changed in between, after which what was answered before no longer
// counts. In the end the sums are those of the distinct feedback that was acknowledged: counts exactly, and
// of each feedback exactly one acknowledgement says that it was no duplicate.
func TestConcurrentWriters(t *testing.T) {
	server := storetest.StartRedis(t)
	models := newFakeModels(map[string]answer{"a": {label: 1}, "b": {label: 2}, "c": {label: 3}})
	var instances []*bench
	for range 3 {
		st := openURL(t, server.URL())
		instances = append(instances, startWith(t, st.Documents(), st.Sums(), models, Config{}))
	}
	var applications atomic.Int64
	rapid.Check(t, func(r *rapid.T) {
		name := fmt.Sprint("app", applications.Add(1))
		app := minimal(name, "a", "b", "c")
		app.Policy = &clipperv1.Policy{Name: rapid.SampledFrom([]string{"exp3", "exp4"}).Draw(r, "policy")}
		app.FeedbackLifetime = durationpb.New(maxLifetime)
		instances[0].create(t, app)
		contexts := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"", "u", "v", "w"}), 1, 4, rapid.ID[string]).Draw(r, "contexts")
		refresh(t, instances)

		w := &writers{t: t, app: name, instances: instances}
		w.run(answers(r, instances, name, contexts, "before"))
		w.check()

		stale := w.ids[:min(len(w.ids), 10)]
		update := &clipperv1.Application{Name: name, Policy: &clipperv1.Policy{Name: "static"}}
		_, err := instances[1].admin.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{Application: update, ResetState: true})
		require.NoError(t, err)
		refresh(t, instances)
		for i, id := range stale {
			_, err := instances[i%len(instances)].Feedback(t.Context(), truth(name, id, 1), nil)
			require.Equal(t, codes.FailedPrecondition, status.Code(err), "%v", err)
		}
		w = &writers{t: t, app: name, instances: instances}
		w.run(answers(r, instances, name, contexts, "after"))
		w.check()
	})
}

func refresh(t *testing.T, instances []*bench) {
	for _, b := range instances {
		require.NoError(t, b.apps.Refresh(t.Context()))
	}
}

// told is feedback that is sent at least once.
type told struct {
	context, id string
	label       float64
	asked       map[string]bool // the models
	sends       int
}

// answers asks queries, of which feedback is to be told.
func answers(r *rapid.T, instances []*bench, app string, contexts []string, when string) (all []told) {
	for i := range rapid.IntRange(1, 60).Draw(r, when) {
		f := told{context: contexts[i%len(contexts)], label: float64(1 + rand.IntN(4)), asked: map[string]bool{}, sends: 1 + rand.IntN(3)}
		answer, err := instances[rand.IntN(len(instances))].Query(r.Context(), app, f.context, input)
		require.NoError(r, err)
		f.id = answer.FeedbackId
		for _, p := range answer.Predictions {
			f.asked[p.Model] = true
		}
		all = append(all, f)
	}
	return all
}

// writers sends feedback to the instances at once.
type writers struct {
	t         *testing.T
	app       string
	instances []*bench
	ids       []string

	want map[string]map[string]float64 // the counts by context, and of all under ""
}

func (w *writers) run(all []told) {
	w.want = map[string]map[string]float64{}
	type send struct {
		*told
		*atomic.Int64 // acknowledgements that said that it counted
	}
	var sends []send
	firsts := make([]atomic.Int64, len(all))
	for i := range all {
		w.ids = append(w.ids, all[i].id)
		w.expect(&all[i])
		for range all[i].sends {
			sends = append(sends, send{&all[i], &firsts[i]})
		}
	}
	rand.Shuffle(len(sends), func(i, j int) { sends[i], sends[j] = sends[j], sends[i] })
	var calls sync.WaitGroup
	for i, f := range sends {
		calls.Go(func() {
			response, err := w.instances[i%len(w.instances)].Feedback(w.t.Context(), truth(w.app, f.id, f.label), nil)
			switch {
			case err != nil:
				w.t.Error(err)
			case !response.Duplicate:
				f.Add(1)
			}
		})
	}
	calls.Wait()
	for i := range firsts {
		require.EqualValues(w.t, 1, firsts[i].Load(), "acknowledged as counted")
	}
}

// expect counts a feedback, once.
func (w *writers) expect(f *told) {
	add := func(userContext string) {
		sums := w.want[userContext]
		if sums == nil {
			sums = map[string]float64{}
			w.want[userContext] = sums
		}
		sums[fieldObservations]++
		for model, label := range map[string]float64{"a": 1, "b": 2, "c": 3} {
			if !f.asked[model] {
				continue
			}
			sums[statisticCount+"/"+model]++
			if label != f.label {
				sums[statisticLoss+"/"+model]++
			}
		}
	}
	add("")
	if f.context != "" {
		add(f.context)
	}
}

func (w *writers) check() {
	for userContext, want := range w.want {
		for _, b := range w.instances {
			require.Equal(w.t, want, onlyCounts(b.sums(w.t, w.app, userContext)), "context %q", userContext)
		}
	}
}
