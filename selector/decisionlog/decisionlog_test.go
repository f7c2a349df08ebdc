// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/config"
)

const (
	jsonLines   = clipperv1.DecisionLogFormat_DECISION_LOG_FORMAT_JSON_LINES
	parquetRows = clipperv1.DecisionLogFormat_DECISION_LOG_FORMAT_PARQUET
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 1, 2, 12, 0, 0, 123456000, time.UTC)

// decision is one with everything that there is.
func decision(i int) *clipperv1.Decision {
	return &clipperv1.Decision{
		Id: fmt.Sprintf("%028x", i), Time: timestamppb.New(noon.Add(time.Duration(i) * time.Millisecond)), Application: "digits", Context: "ann <3", Policy: "exp4",
		Models: []*clipperv1.DecisionModel{
			{Model: "svm", Version: "1", Propensity: 0.25, Weight: 0.75, Status: clipperv1.PredictionStatus_PREDICTION_STATUS_OK, Prediction: structpb.NewNumberValue(7)},
			{Model: "forest:2", Version: "2", Propensity: 1, Weight: 0.25, Shadow: true, Status: clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE},
		},
		Output: structpb.NewStringValue("a\n\"b\""), DefaultReason: clipperv1.DefaultReason_DEFAULT_REASON_LOW_CONFIDENCE, Confidence: 0.5,
		Latency: durationpb.New(1234 * time.Microsecond), Features: []float64{0.5, -1, 1},
	}
}

func feedback(i int) *clipperv1.Decision {
	return &clipperv1.Decision{Id: fmt.Sprintf("%028x", i), Application: "digits", Feedback: &clipperv1.DecisionFeedback{
		Time: timestamppb.New(noon.Add(time.Hour)), Truth: structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewNumberValue(0.1)}}),
		Reward: proto.Float64(0), Losses: []*clipperv1.ModelLoss{{Model: "svm", Loss: 1}},
	}}
}

func open(t testing.TB, cfg Config) *Log {
	l, err := Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(l.Close)
	return l
}

func (l *Log) add(d *clipperv1.Decision, format clipperv1.DecisionLogFormat) {
	l.Add(d.Application, format, func() *clipperv1.Decision { return d })
}

func files(t testing.TB, dir string) (names []string) {
	found, err := list(dir)
	require.NoError(t, err)
	for _, f := range found {
		names = append(names, f.name)
	}
	return names
}

// What is written in either format is read as it was, joined with its feedback.
func TestLog(t *testing.T) {
	for _, format := range []clipperv1.DecisionLogFormat{jsonLines, parquetRows} {
		t.Run(format.String(), func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, Config{Dir: dir})
			other := decision(9)
			other.Application = "other"
			bare := &clipperv1.Decision{Id: "bare", Application: "digits", Time: timestamppb.New(noon.Add(time.Minute)), Latency: durationpb.New(0)}
			for _, d := range []*clipperv1.Decision{feedback(2), decision(2), decision(1), feedback(1), feedback(1), decision(1), feedback(5), other, bare} {
				l.add(d, format)
			}
			l.Close()
			require.Equal(t, 9.0, testutil.ToFloat64(l.written))
			require.Zero(t, testutil.CollectAndCount(l.dropped))

			got, err := Read("digits", dir, filepath.Join(dir, "digits"))
			require.NoError(t, err)
			require.Equal(t, Contents{Decisions: got.Decisions, Files: 2, Orphans: 1}, *got)
			want := []Record{*NewRecord(decision(1)), *NewRecord(decision(2)), *NewRecord(bare)}
			want[0].Feedback, want[1].Feedback = NewRecord(feedback(1)).Feedback, NewRecord(feedback(2)).Feedback
			require.Empty(t, cmp.Diff(want, got.Decisions, cmpopts.EquateEmpty()))

			var size int64
			for _, name := range files(t, dir) {
				info, err := os.Stat(name)
				require.NoError(t, err)
				require.Equal(t, os.FileMode(0o600), info.Mode(), "contexts are people")
				size += info.Size()
			}
			require.InDelta(t, float64(size), testutil.ToFloat64(l.bytes), 0)
		})
	}
}

// A line is the API's message, so that any program that knows the API can read the log.
func TestLog_linesAreMessages(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Config{Dir: dir})
	whole := decision(1)
	whole.Feedback = feedback(1).Feedback
	written := []*clipperv1.Decision{decision(1), feedback(1), whole}
	for _, d := range written {
		l.add(d, jsonLines)
	}
	l.Close()
	text, err := os.ReadFile(files(t, dir)[0])
	require.NoError(t, err)
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	require.Len(t, lines, len(written))
	for i, line := range lines {
		var got clipperv1.Decision
		require.NoError(t, protojson.Unmarshal(line, &got), "%s", line)
		require.Empty(t, cmp.Diff(written[i], &got, protocmp.Transform()))
	}
}

func TestLog_size(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes.jsonl"), make([]byte, 5000), 0o600))
	l := open(t, Config{Dir: dir, MaxFile: 100 * config.KiB, MaxTotal: 300 * config.KiB})
	const records = 2000 // some 500 bytes each
	for i := range records {
		for { // The queue may be full.
			before := testutil.ToFloat64(l.dropped.WithLabelValues("queue"))
			l.add(decision(i), jsonLines)
			if testutil.ToFloat64(l.dropped.WithLabelValues("queue")) == before {
				break
			}
		}
	}
	l.Close()
	require.Equal(t, float64(records), testutil.ToFloat64(l.written))
	var total int64
	names := files(t, dir)
	require.Greater(t, len(names), 1)
	for _, name := range names {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Less(t, info.Size(), int64(100*config.KiB+64*config.KiB+2*config.KiB), "with what was in the buffer")
		total += info.Size()
	}
	require.LessOrEqual(t, total, int64(300*config.KiB))
	require.FileExists(t, filepath.Join(dir, "notes.jsonl"), "it is not the log's")

	got, err := Read("digits", filepath.Join(dir, "digits"))
	require.NoError(t, err)
	require.Less(t, len(got.Decisions), records, "the oldest were deleted")
	require.Equal(t, fmt.Sprintf("%028x", records-1), got.Decisions[len(got.Decisions)-1].ID, "not the newest")

	// A new log knows of the files that are there.
	open(t, Config{Dir: dir, MaxFile: config.KiB, MaxTotal: config.KiB}).Close()
	require.Empty(t, files(t, dir))
}

func TestLog_age(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l, err := Open(Config{Dir: dir, MaxAge: time.Hour}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		require.NoError(t, err)
		defer l.Close()
		l.add(decision(1), jsonLines)
		l.add(decision(1), parquetRows)
		time.Sleep(flushInterval + time.Millisecond)
		synctest.Wait()
		got, err := Read("digits", dir)
		require.NoError(t, err)
		require.Len(t, got.Decisions, 1, "a line is there after a second")
		require.Equal(t, 1, got.Unfinished)

		time.Sleep(time.Hour)
		l.add(decision(2), jsonLines)
		time.Sleep(flushInterval + time.Millisecond)
		synctest.Wait()
		got, err = Read("digits", dir)
		require.NoError(t, err)
		require.Len(t, got.Decisions, 2)
		require.Equal(t, 3, got.Files)
		require.Zero(t, got.Unfinished, "the file is old enough")
	})
}

// A query never waits: what the queue has no room for is counted.
func TestLog_overflow(t *testing.T) {
	l := open(t, Config{Dir: t.TempDir(), Queue: 2})
	busy, goOn := make(chan struct{}), make(chan struct{})
	l.Add("digits", jsonLines, func() *clipperv1.Decision {
		close(busy)
		<-goOn
		return decision(0)
	})
	<-busy
	for i := range 5 {
		l.add(decision(i+1), jsonLines)
	}
	require.Equal(t, 3.0, testutil.ToFloat64(l.dropped.WithLabelValues("queue")))
	close(goOn)
	l.Close()
	require.Equal(t, 3.0, testutil.ToFloat64(l.written))
	l.add(decision(9), jsonLines)
	require.Equal(t, 4.0, testutil.ToFloat64(l.dropped.WithLabelValues("queue")), "closed")
}

func TestLog_diskFails(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l, err := Open(Config{Dir: dir}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		require.NoError(t, err)
		defer l.Close()
		obstacle := filepath.Join(dir, "digits") // A file where the directory is to be.
		require.NoError(t, os.WriteFile(obstacle, nil, 0o600))
		l.add(decision(1), jsonLines)
		synctest.Wait()
		require.Equal(t, 1.0, testutil.ToFloat64(l.dropped.WithLabelValues("disk")))
		require.NoError(t, os.Remove(obstacle))
		l.add(decision(2), jsonLines)
		synctest.Wait()
		require.Equal(t, 2.0, testutil.ToFloat64(l.dropped.WithLabelValues("disk")), "it is not tried at once")
		time.Sleep(retryInterval)
		l.add(decision(3), jsonLines)
		synctest.Wait()
		require.Equal(t, 1.0, testutil.ToFloat64(l.written))
	})
}

func TestLog_manyApplications(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Config{Dir: dir, Queue: 1000})
	for i := range 3 * maxOpen {
		d := decision(i)
		d.Application = fmt.Sprintf("app%d", i%(2*maxOpen))
		l.add(d, jsonLines)
	}
	l.Close()
	require.LessOrEqual(t, len(l.open), maxOpen)
	require.Equal(t, 3.0*maxOpen, testutil.ToFloat64(l.written))
}

func TestOpen_invalid(t *testing.T) {
	for _, cfg := range []Config{{MaxFile: -1}, {MaxAge: -1}, {Queue: -1}, {MaxFile: 2, MaxTotal: 1}, {Dir: filepath.Join("/dev/null", "x")}} {
		_, err := Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		require.ErrorContains(t, err, "decision log", "%+v", cfg)
	}
}

func TestRead_damaged(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Config{Dir: dir})
	l.add(decision(1), jsonLines)
	l.add(decision(2), jsonLines)
	l.add(decision(1), parquetRows)
	l.Close()
	for _, name := range files(t, dir) {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(name, text[:len(text)-20], 0o600))
		got, err := Read("digits", name)
		if strings.HasSuffix(name, parquetSuffix) {
			require.ErrorContains(t, err, "arquet")
			require.NoError(t, os.Rename(name, name+partialSuffix))
			continue
		}
		require.NoError(t, err)
		require.Len(t, got.Decisions, 1, "the last line is broken")
		require.Equal(t, 1, got.Broken)
	}
	got, err := Read("digits", dir)
	require.NoError(t, err)
	require.Equal(t, 1, got.Unfinished)

	_, err = Read("digits", filepath.Join(dir, "nowhere"))
	require.ErrorContains(t, err, "nowhere")
	strange := filepath.Join(dir, "strange.jsonl")
	require.NoError(t, os.WriteFile(strange, []byte("{}\nhello\n"), 0o600))
	_, err = Read("digits", strange)
	require.ErrorContains(t, err, "not one line")
	long := append(bytes.Repeat([]byte("x"), 3*maxLine), '\n')
	l = open(t, Config{Dir: filepath.Join(dir, "second")})
	l.add(decision(3), jsonLines)
	l.Close()
	good, err := os.ReadFile(files(t, filepath.Join(dir, "second"))[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(strange, append(long, good...), 0o600))
	got, err = Read("digits", strange)
	require.NoError(t, err)
	require.Len(t, got.Decisions, 1)
	require.Equal(t, 1, got.Broken)
}

// Whatever is in a file, reading ends without a panic, and what comes out is safe to compute with.
func FuzzRead(f *testing.F) {
	dir := f.TempDir()
	l := open(f, Config{Dir: dir})
	for i := range 2 {
		l.add(decision(i), jsonLines)
		l.add(feedback(i), jsonLines)
		l.add(decision(i), parquetRows)
		l.add(feedback(i), parquetRows)
	}
	l.Close()
	for _, name := range files(f, dir) {
		text, err := os.ReadFile(name)
		require.NoError(f, err)
		f.Add(text, strings.HasSuffix(name, parquetSuffix))
	}
	f.Add([]byte(`{"id":"1","application":"digits","time":"2026-01-02T12:00:00Z","latency":"-1s","models":[{"model":"a","propensity":0}]}`+"\n"), false)
	f.Add([]byte(`{"id":"1","application":"digits","feedback":{"time":"2026-01-02T12:00:00Z","reward":1e999,"losses":null}}`), false)
	f.Fuzz(func(t *testing.T, text []byte, asParquet bool) {
		name := filepath.Join(t.TempDir(), "log"+linesSuffix)
		if asParquet {
			name = strings.TrimSuffix(name, linesSuffix) + parquetSuffix
		}
		require.NoError(t, os.WriteFile(name, text, 0o600))
		got, err := Read("digits", name)
		if err != nil {
			return
		}
		for i := range got.Decisions {
			require.True(t, got.Decisions[i].valid())
			require.True(t, got.Decisions[i].isDecision())
		}
	})
}
