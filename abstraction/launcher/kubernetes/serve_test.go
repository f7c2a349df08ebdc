// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clipper-serving/clipper/abstraction"
	"github.com/clipper-serving/clipper/abstraction/launcher"
	container "github.com/clipper-serving/clipper/containerrpc/go"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/inprocess"
	"github.com/clipper-serving/clipper/internal/store/storebolt"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// envAnswer makes the test binary a model that answers everything with this number.
const envAnswer = "KUBERNETES_TEST_ANSWER"

func modelMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	answer, err := strconv.Atoi(os.Getenv(envAnswer))
	if err == nil {
		err = container.Run(ctx, container.ConfigFromEnvironment(), constant(answer))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

type constant int

// Describe implements container.Model.
func (constant) Describe() *clipperv1.DescribeResponse {
	return &clipperv1.DescribeResponse{Signature: &clipperv1.Signature{
		Outputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_INT64}},
	}}
}

// Predict implements container.Model.
func (c constant) Predict(_ context.Context, b *container.Batch) (*container.Result, error) {
	row := binary.LittleEndian.AppendUint64(nil, uint64(c)) //nolint:gosec // not negative
	return &container.Result{Outputs: []*clipperv1.BatchTensor{{DataType: clipperv1.DataType_DATA_TYPE_INT64, Data: bytes.Repeat(row, b.Rows)}}}, nil
}

// TestServes goes the whole way from a deployed version to an answered query, over Deployments, pods and
// EndpointSlices, through a switch of versions and the loss of a replica.
func TestServes(t *testing.T) {
	cluster := newCluster(t)
	db, err := storebolt.Open(t.Context(), filepath.Join(t.TempDir(), "store"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	l := newTestLauncher(t, cluster, Config{})
	s, err := abstraction.New(abstraction.Config{CacheSize: 1 << 20, DrainTimeout: 10 * time.Second}, abstraction.Deps{
		Store: db.Documents(), Launchers: []launcher.Launcher{l},
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	running, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(running) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
		require.NoError(t, s.Close(context.Background()))
	})
	conn := inprocess.New(nil, nil)
	s.Register(conn)
	models := clipperv1.NewModelServiceClient(conn)

	deploy := func(version string, answer int) {
		c := imageContainer(image)
		c.Environment = map[string]string{envAnswer: strconv.Itoa(answer), "GORACE": "atexit_sleep_ms=0"}
		_, err := models.DeployModel(t.Context(), &clipperv1.DeployModelRequest{Version: &clipperv1.ModelVersion{
			Model: "digits", Version: version, Container: c, Replicas: proto.Uint32(2), Cache: &clipperv1.Cache{Disabled: true},
		}})
		require.NoError(t, err)
	}
	answers := func(version string, want uint64) {
		t.Helper()
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			response, err := models.GetModelVersion(t.Context(), &clipperv1.GetModelVersionRequest{Model: "digits", Version: version})
			require.NoError(c, err)
			require.Equal(c, clipperv1.ModelState_MODEL_STATE_READY, response.Version.State, response.Version.StateMessage)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			in := tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_INT64, Data: make([]byte, 8)}})
			got, err := s.Predict(ctx, []*internalv1.ModelReference{{Model: "digits"}}, in)
			require.NoError(c, err)
			require.Equal(c, clipperv1.PredictionStatus_PREDICTION_STATUS_OK, got[0].Status, got[0].Message)
			require.Equal(c, version, got[0].Version)
			require.Equal(c, want, binary.LittleEndian.Uint64(got[0].Outputs[0].Data))
		}, patience, poll)
	}
	deploy("1", 7)
	answers("1", 7)
	require.Equal(t, 1, l.deployments(t))
	deploy("2", 8)
	answers("2", 8)
	require.Equal(t, 2, l.deployments(t), "a Deployment for each version")

	pods, err := cluster.Direct().CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: labelVersion + "=2"})
	require.NoError(t, err)
	require.Len(t, pods.Items, 2)
	require.NoError(t, cluster.Kubelet.Kill(pods.Items[0].Name, syscall.SIGKILL))
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		response, err := models.GetModelVersion(t.Context(), &clipperv1.GetModelVersionRequest{Model: "digits", Version: "2"})
		require.NoError(c, err)
		restarts := uint32(0)
		for _, r := range response.Version.ReplicaStatus {
			restarts += r.Restarts
		}
		require.EqualValues(c, 1, restarts)
	}, patience, poll)
	answers("2", 8)

	_, err = models.DeleteModel(t.Context(), &clipperv1.DeleteModelRequest{Model: "digits"})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return l.deployments(t) == 0 }, patience, poll)
}
