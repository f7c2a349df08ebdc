// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

const (
	invalidField = clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD
	missingField = clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD
)

func adapter(framework, path string) *clipperv1.Container {
	return &clipperv1.Container{Source: &clipperv1.Container_Adapter{Adapter: &clipperv1.Adapter{Framework: framework, ModelPath: path}}}
}

func command(arguments ...string) *clipperv1.Container {
	return &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: arguments}}}
}

func address(a string) *clipperv1.Container {
	return &clipperv1.Container{Source: &clipperv1.Container_Address{Address: &clipperv1.Address{Address: a}}}
}

func TestNormalizeFillsInTheDefaults(t *testing.T) {
	in := &clipperv1.ModelVersion{
		Model: "m", Version: "v1", Container: adapter("sklearn", "/m"), Labels: map[string]string{"a": "b"},
		// What the server sets is ignored.
		Current: true, State: clipperv1.ModelState_MODEL_STATE_READY, StateMessage: "x", CreateTime: timestamppb.Now(),
		ReplicaStatus: []*clipperv1.Replica{{Id: "1"}},
	}
	before := proto.CloneOf(in)
	got, err := Normalize(in)
	require.NoError(t, err)
	want := &clipperv1.ModelVersion{
		Model: "m", Version: "v1", Container: adapter("sklearn", "/m"), Labels: map[string]string{"a": "b"},
		Replicas: proto.Uint32(1),
		Batching: &clipperv1.Batching{Policy: "slo", MaxBatchRows: 4096, MaxInFlight: 2, MaxQueueRows: 65536},
		Cache:    &clipperv1.Cache{},
		WarmUp:   &clipperv1.WarmUp{TimeLimit: durationpb.New(10 * time.Second)},
		Homes:    1,
	}
	want.Container.StartTimeout = durationpb.New(2 * time.Minute)
	require.True(t, proto.Equal(want, got), got)
	require.True(t, proto.Equal(before, in), "the request is not changed")
}

// TestNormalizeAdapterWithoutModel: only the adapter knows whether it needs a saved model.
func TestNormalizeAdapterWithoutModel(t *testing.T) {
	n, err := Normalize(&clipperv1.ModelVersion{Model: "m", Version: "1", Container: adapter("http", "")})
	require.NoError(t, err)
	require.Equal(t, "http", n.Container.GetAdapter().GetFramework())
	require.Empty(t, n.Container.GetAdapter().GetModelPath())
}

func TestNormalizeKeepsWhatIsGiven(t *testing.T) {
	in := &clipperv1.ModelVersion{
		Model: "A.b_c-9", Version: "2026-01-01", Container: command("python3", "serve.py"), Replicas: proto.Uint32(0),
		Signature: &clipperv1.Signature{Inputs: []*clipperv1.TensorSpec{
			{Name: "a", DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{-1, 3}}, {Name: "b", AnyShape: true},
		}},
		Batching: &clipperv1.Batching{Policy: "fixed", MaxBatchRows: 65536, LatencyObjective: durationpb.New(time.Second), MaxInFlight: 1, MaxQueueRows: 1},
		Cache:    &clipperv1.Cache{Disabled: true},
		WarmUp: &clipperv1.WarmUp{TimeLimit: durationpb.New(time.Second), Samples: []*clipperv1.WarmUpSample{{Tensors: []*clipperv1.Tensor{
			{Name: "a", DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{0, 3}},
			{Name: "b", DataType: clipperv1.DataType_DATA_TYPE_STRING, Strings: []string{"x"}},
		}}}},
		Homes: 16,
	}
	in.Container.StartTimeout = durationpb.New(time.Second)
	in.Container.Environment = map[string]string{"OMP_NUM_THREADS": "1"}
	got, err := Normalize(in)
	require.NoError(t, err)
	require.True(t, proto.Equal(in, got), got)
}

func TestNormalizeRefuses(t *testing.T) {
	good := func(change func(*clipperv1.ModelVersion)) *clipperv1.ModelVersion {
		v := &clipperv1.ModelVersion{Model: "m", Version: "v1", Container: adapter("sklearn", "/m")}
		change(v)
		return v
	}
	with := func(c *clipperv1.Container) *clipperv1.ModelVersion {
		return good(func(v *clipperv1.ModelVersion) { v.Container = c })
	}
	input := func(specs ...*clipperv1.TensorSpec) *clipperv1.ModelVersion {
		return good(func(v *clipperv1.ModelVersion) { v.Signature = &clipperv1.Signature{Inputs: specs} })
	}
	environment := func(name, value string) *clipperv1.ModelVersion {
		return good(func(v *clipperv1.ModelVersion) { v.Container.Environment = map[string]string{name: value} })
	}
	batching := func(b *clipperv1.Batching) *clipperv1.ModelVersion {
		return good(func(v *clipperv1.ModelVersion) { v.Batching = b })
	}
	sample := func(tensors ...*clipperv1.Tensor) *clipperv1.WarmUpSample {
		return &clipperv1.WarmUpSample{Tensors: tensors}
	}
	bit := sample(&clipperv1.Tensor{DataType: clipperv1.DataType_DATA_TYPE_BOOL, Data: []byte{1}})
	word := sample(&clipperv1.Tensor{DataType: clipperv1.DataType_DATA_TYPE_STRING, Strings: []string{"x"}})
	large := sample(&clipperv1.Tensor{DataType: clipperv1.DataType_DATA_TYPE_STRING, Strings: []string{strings.Repeat("x", maxSampleBytes)}})
	warmUp := func(w *clipperv1.WarmUp, inputs ...*clipperv1.TensorSpec) *clipperv1.ModelVersion {
		v := input(inputs...)
		v.WarmUp = w
		return v
	}
	boolean := &clipperv1.TensorSpec{DataType: clipperv1.DataType_DATA_TYPE_BOOL}
	long := strings.Repeat("x", maxText+1)
	for name, tc := range map[string]struct {
		version *clipperv1.ModelVersion
		field   string
		reason  clipperv1.ErrorReason
	}{
		"nothing":            {nil, "version", missingField},
		"no model":           {good(func(v *clipperv1.ModelVersion) { v.Model = "" }), "version.model", missingField},
		"long model":         {good(func(v *clipperv1.ModelVersion) { v.Model = strings.Repeat("m", 64) }), "version.model", invalidField},
		"slash in model":     {good(func(v *clipperv1.ModelVersion) { v.Model = "a/b" }), "version.model", invalidField},
		"newline in model":   {good(func(v *clipperv1.ModelVersion) { v.Model = "a\n" }), "version.model", invalidField},
		"dot first":          {good(func(v *clipperv1.ModelVersion) { v.Version = ".." }), "version.version", invalidField},
		"no version":         {good(func(v *clipperv1.ModelVersion) { v.Version = "" }), "version.version", missingField},
		"replicas":           {good(func(v *clipperv1.ModelVersion) { v.Replicas = proto.Uint32(257) }), "version.replicas", invalidField},
		"homes":              {good(func(v *clipperv1.ModelVersion) { v.Homes = 17 }), "version.homes", invalidField},
		"no container":       {with(nil), "version.container", missingField},
		"no source":          {with(&clipperv1.Container{}), "version.container", missingField},
		"empty source":       {with(&clipperv1.Container{Source: &clipperv1.Container_Adapter{}}), "version.container.adapter.framework", missingField},
		"framework":          {with(adapter("../sklearn", "/m")), "version.container.adapter.framework", invalidField},
		"relative path":      {with(adapter("sklearn", "m.joblib")), "version.container.adapter.model_path", invalidField},
		"long path":          {with(adapter("sklearn", "/"+long)), "version.container.adapter.model_path", invalidField},
		"no program":         {with(command()), "version.container.command.arguments", missingField},
		"empty program":      {with(command("")), "version.container.command.arguments", missingField},
		"relative program":   {with(command("./serve")), "version.container.command.arguments[0]", invalidField},
		"long argument":      {with(command("serve", long)), "version.container.command.arguments[1]", invalidField},
		"NUL in argument":    {with(command("serve", "a\x00b")), "version.container.command.arguments[1]", invalidField},
		"many arguments":     {with(command(make([]string, maxArguments+1)...)), "version.container.command.arguments", invalidField},
		"relative directory": {with(&clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: []string{"a"}, Directory: "b"}}}), "version.container.command.directory", invalidField},
		"no address":         {with(address("")), "version.container.address.address", missingField},
		"no port":            {with(address("localhost")), "version.container.address.address", invalidField},
		"no host":            {with(address(":80")), "version.container.address.address", invalidField},
		"port 0":             {with(address("localhost:0")), "version.container.address.address", invalidField},
		"large port":         {with(address("localhost:65536")), "version.container.address.address", invalidField},
		"relative socket":    {with(address("unix:a")), "version.container.address.address", invalidField},
		"no image":           {with(&clipperv1.Container{Source: &clipperv1.Container_Image{}}), "version.container.image.reference", missingField},
		"CLIPPER_ variable":  {environment("CLIPPER_MODEL_NAME", "x"), "version.container.environment", invalidField},
		"bad variable":       {environment("A=B", "x"), "version.container.environment", invalidField},
		"long variable":      {environment("A", long), "version.container.environment", invalidField},
		"start timeout": {
			good(func(v *clipperv1.ModelVersion) { v.Container.StartTimeout = durationpb.New(-1) }),
			"version.container.start_timeout", invalidField,
		},
		"policy":            {batching(&clipperv1.Batching{Policy: "magic"}), "version.batching.policy", invalidField},
		"batch rows":        {batching(&clipperv1.Batching{MaxBatchRows: 65537}), "version.batching.max_batch_rows", invalidField},
		"in flight":         {batching(&clipperv1.Batching{MaxInFlight: 3}), "version.batching.max_in_flight", invalidField},
		"queue rows":        {batching(&clipperv1.Batching{MaxQueueRows: maxQueueRows + 1}), "version.batching.max_queue_rows", invalidField},
		"latency objective": {batching(&clipperv1.Batching{LatencyObjective: &durationpb.Duration{}}), "version.batching.latency_objective", invalidField},
		"empty sample":      {warmUp(&clipperv1.WarmUp{Samples: []*clipperv1.WarmUpSample{bit, {}}}), "version.warm_up.samples[1]", invalidField},
		"misfit sample":     {warmUp(&clipperv1.WarmUp{Samples: []*clipperv1.WarmUpSample{bit, word}}, boolean), "version.warm_up.samples[1]", invalidField},
		"unlike samples":    {warmUp(&clipperv1.WarmUp{Samples: []*clipperv1.WarmUpSample{bit, word}}), "version.warm_up.samples[1]", invalidField},
		"many samples":      {warmUp(&clipperv1.WarmUp{Samples: slices.Repeat([]*clipperv1.WarmUpSample{bit}, 65)}), "version.warm_up.samples", invalidField},
		"large samples":     {warmUp(&clipperv1.WarmUp{Samples: []*clipperv1.WarmUpSample{large}}), "version.warm_up.samples", invalidField},
		"unused samples":    {warmUp(&clipperv1.WarmUp{Disabled: true, Samples: []*clipperv1.WarmUpSample{bit}}), "version.warm_up.samples", invalidField},
		"warm-up time":      {warmUp(&clipperv1.WarmUp{TimeLimit: durationpb.New(2 * time.Hour)}), "version.warm_up.time_limit", invalidField},
		"label":             {good(func(v *clipperv1.ModelVersion) { v.Labels = map[string]string{"a": strings.Repeat("b", 256)} }), "version.labels", invalidField},
		"empty label":       {good(func(v *clipperv1.ModelVersion) { v.Labels = map[string]string{"": "b"} }), "version.labels", invalidField},
		"unnamed inputs":    {input(&clipperv1.TensorSpec{Name: "a"}, &clipperv1.TensorSpec{}), "version.signature.inputs[1].name", missingField},
		"equal inputs":      {input(&clipperv1.TensorSpec{Name: "a"}, &clipperv1.TensorSpec{Name: "a"}), "version.signature.inputs[1].name", invalidField},
		"unknown type":      {input(&clipperv1.TensorSpec{DataType: 99}), "version.signature.inputs[0].data_type", invalidField},
		"negative length":   {input(&clipperv1.TensorSpec{Shape: []int64{3, -2}}), "version.signature.inputs[0].shape", invalidField},
		"huge shape":        {input(&clipperv1.TensorSpec{Shape: []int64{1 << 40, 1 << 40}}), "version.signature.inputs[0].shape", invalidField},
		"shape and any":     {input(&clipperv1.TensorSpec{Shape: []int64{1}, AnyShape: true}), "version.signature.inputs[0].shape", invalidField},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Normalize(tc.version)
			requireError(t, err, codes.InvalidArgument, tc.reason)
			require.Equal(t, tc.field, apierror.ToProto(err).Field)
			require.Contains(t, err.Error(), tc.field)
		})
	}
}

func TestNormalizeTakesRegisteredReplicas(t *testing.T) {
	got, err := Normalize(&clipperv1.ModelVersion{Model: "m", Version: "v1", Container: &clipperv1.Container{Source: &clipperv1.Container_Registered{}}})
	require.NoError(t, err)
	require.EqualValues(t, 1, got.GetReplicas())
}

func TestAddressesThatAreAllowed(t *testing.T) {
	for _, a := range []string{"localhost:80", "10.0.0.1:65535", "[::1]:8000", "unix:/run/m.sock"} {
		require.NoError(t, CheckAddress("a", a), a)
	}
}
