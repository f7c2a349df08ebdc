// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/clipper-serving/clipper/abstraction/autoscale"
	"github.com/clipper-serving/clipper/abstraction/warmup"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// The limits and defaults of the API; see model_service.proto.
const (
	maxReplicas      = 256
	maxHomes         = 16
	maxKeep          = 1000
	maxBatchRows     = 65536
	maxQueueRows     = 16 << 20
	maxLabels        = 64
	maxLabel         = 256
	maxEnvironment   = 256
	maxText          = 4096 // a path, an argument, an address, a variable
	maxArguments     = 256
	maxTensors       = 64
	maxDimensions    = 32
	maxDuration      = time.Hour
	maxSamples       = 64
	maxSampleBytes   = 1 << 20
	defaultTimeout   = 2 * time.Minute
	defaultBatchRows = 4096
	defaultInFlight  = 2
	defaultQueueRows = 65536
	maxDelay         = time.Minute
	maxIdle          = 24 * time.Hour
	defaultPolicy    = "slo"
)

var (
	policies = []string{"slo", "aimd", "quantile", "fixed", "none"}
	names    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
)

func invalid(field, format string, args ...any) error {
	return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field, field+": "+format, args...)
}

func missing(field, want string) error {
	return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, field, "%s is missing: %s", field, want)
}

// CheckName refuses what cannot be the name of a model or a version.
func CheckName(field, name string) error {
	const want = "want 1 to 63 letters, digits, '.', '_' or '-', starting with a letter or digit"
	if name == "" {
		return missing(field, want)
	}
	if !names.MatchString(name) {
		return invalid(field, "%q is not a name: %s", name, want)
	}
	return nil
}

// Normalize checks a version that is to be deployed and returns it with every default filled
// in and without what the server sets. The paths in errors begin with "version.".
func Normalize(v *clipperv1.ModelVersion) (*clipperv1.ModelVersion, error) {
	if v == nil {
		return nil, missing("version", "say what to deploy")
	}
	if err := CheckName("version.model", v.Model); err != nil {
		return nil, err
	}
	if err := CheckName("version.version", v.Version); err != nil {
		return nil, err
	}
	if err := checkSignature(v.Signature); err != nil {
		return nil, err
	}
	if err := checkContainer(v.Container); err != nil {
		return nil, err
	}
	if err := CheckReplicas("version.replicas", v.Replicas); err != nil {
		return nil, err
	}
	if err := CheckHomes("version.homes", v.Homes); err != nil {
		return nil, err
	}
	scaling, err := NormalizeAutoscaling("version.autoscaling", v.Autoscaling)
	if err != nil {
		return nil, err
	}
	if err := CheckScalable("version.autoscaling", scaling, v.Container); err != nil {
		return nil, err
	}
	if err := CheckWithin("version.replicas", v.Replicas, scaling); err != nil {
		return nil, err
	}
	if err := checkLabels(v.Labels); err != nil {
		return nil, err
	}
	if err := checkWarmUp(v.WarmUp, v.Signature); err != nil {
		return nil, err
	}
	batching, err := NormalizeBatching("version.batching", v.Batching)
	if err != nil {
		return nil, err
	}
	n := &clipperv1.ModelVersion{
		Model: v.Model, Version: v.Version, Signature: v.Signature, Labels: v.Labels, Batching: batching,
		Container: proto.CloneOf(v.Container),
		Replicas:  v.Replicas,
		Cache:     v.Cache,
		WarmUp:    proto.CloneOf(v.WarmUp),
		Homes:     max(v.Homes, 1),

		Autoscaling: scaling,
	}
	if n.Container.StartTimeout == nil {
		n.Container.StartTimeout = durationpb.New(defaultTimeout)
	}
	if n.Replicas == nil {
		n.Replicas = proto.Uint32(max(scaling.GetMinReplicas(), 1))
	}
	if n.Cache == nil {
		n.Cache = &clipperv1.Cache{}
	}
	if n.WarmUp == nil {
		n.WarmUp = &clipperv1.WarmUp{}
	}
	if n.WarmUp.TimeLimit == nil && !n.WarmUp.Disabled {
		n.WarmUp.TimeLimit = durationpb.New(warmup.DefaultTimeLimit)
	}
	return n, nil
}

// CheckReplicas refuses a number of replicas that is out of range; nil is the default.
func CheckReplicas(field string, n *uint32) error {
	if n != nil && *n > maxReplicas {
		return invalid(field, "want 0 to %d replicas, not %d", maxReplicas, *n)
	}
	return nil
}

// CheckKeepVersions refuses a number of versions to keep that is out of range; nil leaves it as it is.
func CheckKeepVersions(field string, n *uint32) error {
	if n != nil && *n > maxKeep {
		return invalid(field, "want 0 to %d versions, not %d", maxKeep, *n)
	}
	return nil
}

// NormalizeAutoscaling checks the bounds between which Clipper chooses the number of replicas and fills in the
// defaults that do not depend on what is learned. It returns nil when it does not choose.
func NormalizeAutoscaling(field string, a *clipperv1.Autoscaling) (*clipperv1.Autoscaling, error) {
	if a == nil {
		return nil, nil
	}
	n := proto.CloneOf(a)
	if n.TargetLoad == 0 {
		n.TargetLoad = autoscale.DefaultTargetLoad
	}
	if n.IdleTimeout == nil {
		n.IdleTimeout = durationpb.New(autoscale.DefaultIdleTimeout)
	}
	switch idle := n.IdleTimeout; {
	case n.MaxReplicas > maxReplicas:
		return nil, invalid(field+".max_replicas", "want 1 to %d replicas, or 0 to turn autoscaling off, not %d", maxReplicas, n.MaxReplicas)
	case n.MaxReplicas == 0 && n.MinReplicas > 0:
		return nil, missing(field+".max_replicas", "with a minimum, say how many replicas there may be at most")
	case n.MinReplicas > n.MaxReplicas:
		return nil, invalid(field+".min_replicas", "want at most max_replicas, which is %d, not %d", n.MaxReplicas, n.MinReplicas)
	case !(n.TargetLoad > 0 && n.TargetLoad <= 1):
		return nil, invalid(field+".target_load", "want a share above 0 and of at most 1, not %v", n.TargetLoad)
	case idle.CheckValid() != nil || idle.AsDuration() <= 0 || idle.AsDuration() > maxIdle:
		return nil, invalid(field+".idle_timeout", "want a duration above 0 and of at most %v", maxIdle)
	case n.MaxReplicas == 0:
		return nil, nil
	}
	return n, checkDuration(field+".scale_down_delay", n.ScaleDownDelay)
}

// CheckScalable refuses autoscaling for replicas that are somebody else's to start.
func CheckScalable(field string, a *clipperv1.Autoscaling, c *clipperv1.Container) error {
	if a.GetMaxReplicas() > 0 && (c.GetAddress() != nil || c.GetRegistered() != nil) {
		return invalid(field, "want none for containers that somebody else starts: let that scale them, by the metrics clipper_model_load_ratio or clipper_model_desired_replicas")
	}
	return nil
}

// CheckWithin refuses a number of replicas that is set by hand outside of the bounds of autoscaling; nil is
// the default.
func CheckWithin(field string, n *uint32, a *clipperv1.Autoscaling) error {
	if n != nil && a.GetMaxReplicas() > 0 && (*n < a.GetMinReplicas() || *n > a.GetMaxReplicas()) {
		return invalid(field, "want %d to %d, the bounds of autoscaling, not %d: change autoscaling, or turn it off with max_replicas 0", a.GetMinReplicas(), a.GetMaxReplicas(), *n)
	}
	return nil
}

// CheckHomes refuses a number of homes that is out of range; 0 is the default.
func CheckHomes(field string, n uint32) error {
	if n > maxHomes {
		return invalid(field, "want 1 to %d homes, not %d", maxHomes, n)
	}
	return nil
}

// NormalizeBatching checks how queries are batched and fills in the defaults.
func NormalizeBatching(field string, b *clipperv1.Batching) (*clipperv1.Batching, error) {
	n := &clipperv1.Batching{}
	if b != nil {
		n = proto.CloneOf(b)
	}
	if n.Policy == "" {
		n.Policy = defaultPolicy
	}
	if !slices.Contains(policies, n.Policy) {
		return nil, invalid(field+".policy", "%q is not known: want %s", n.Policy, strings.Join(policies, ", "))
	}
	for _, f := range []struct {
		name  string
		value *uint32
		max   uint32
		def   uint32
	}{
		{".max_batch_rows", &n.MaxBatchRows, maxBatchRows, defaultBatchRows},
		{".max_in_flight", &n.MaxInFlight, 2, defaultInFlight},
		{".max_queue_rows", &n.MaxQueueRows, maxQueueRows, defaultQueueRows},
	} {
		if *f.value == 0 {
			*f.value = f.def
		}
		if *f.value > f.max {
			return nil, invalid(field+f.name, "want 1 to %d, or 0 for the default, not %d", f.max, *f.value)
		}
	}
	if d := n.MaxDelay; d != nil {
		if err := d.CheckValid(); err != nil || d.AsDuration() < 0 || d.AsDuration() > maxDelay {
			return nil, invalid(field+".max_delay", "want a duration from 0 to %v", maxDelay)
		}
	}
	return n, checkDuration(field+".latency_objective", n.LatencyObjective)
}

func checkDuration(field string, d *durationpb.Duration) error {
	if d == nil {
		return nil
	}
	if err := d.CheckValid(); err != nil || d.AsDuration() <= 0 || d.AsDuration() > maxDuration {
		return invalid(field, "want a duration above 0 and of at most %v", maxDuration)
	}
	return nil
}

// checkWarmUp refuses samples that cannot be inputs of the version, as far as its signature says.
func checkWarmUp(w *clipperv1.WarmUp, signature *clipperv1.Signature) error {
	const field = "version.warm_up"
	samples := w.GetSamples()
	if len(samples) > maxSamples {
		return invalid(field+".samples", "want at most %d, not %d", maxSamples, len(samples))
	}
	if w.GetDisabled() && len(samples) > 0 {
		return invalid(field+".samples", "want none when disabled is set")
	}
	if n := proto.Size(w); n > maxSampleBytes {
		return invalid(field+".samples", "want at most %d bytes together, not %d", maxSampleBytes, n)
	}
	for i, sample := range samples {
		at := field + ".samples[" + strconv.Itoa(i) + "]"
		if err := tensor.CheckInput(sample.GetTensors(), signature); err != nil {
			return invalid(at, "%v", err)
		}
		if !warmup.Alike(samples[0].GetTensors(), sample.GetTensors()) {
			return invalid(at, "want tensors of the same names and types as in samples[0]")
		}
	}
	return checkDuration(field+".time_limit", w.GetTimeLimit())
}

func checkLabels(labels map[string]string) error {
	const field = "version.labels"
	if len(labels) > maxLabels {
		return invalid(field, "want at most %d labels, not %d", maxLabels, len(labels))
	}
	for name, value := range labels {
		if name == "" || len(name)+len(value) > maxLabel {
			return invalid(field, "the label %.40q: want a name that is not empty, and name and value together of at most %d bytes", name, maxLabel)
		}
	}
	return nil
}

func checkSignature(s *clipperv1.Signature) error {
	if err := checkSpecs("version.signature.inputs", s.GetInputs()); err != nil {
		return err
	}
	return checkSpecs("version.signature.outputs", s.GetOutputs())
}

func checkSpecs(field string, specs []*clipperv1.TensorSpec) error {
	if len(specs) > maxTensors {
		return invalid(field, "want at most %d tensors, not %d", maxTensors, len(specs))
	}
	seen := map[string]bool{}
	for i, spec := range specs {
		at := field + "[" + strconv.Itoa(i) + "]"
		if len(specs) > 1 && spec.GetName() == "" {
			return missing(at+".name", "each of several tensors has a name")
		}
		if len(spec.GetName()) > maxLabel {
			return invalid(at+".name", "want at most %d bytes", maxLabel)
		}
		if seen[spec.GetName()] {
			return invalid(at+".name", "%q is there twice", spec.GetName())
		}
		seen[spec.GetName()] = true
		if _, known := clipperv1.DataType_name[int32(spec.GetDataType())]; !known {
			return invalid(at+".data_type", "%d is not known", int32(spec.GetDataType()))
		}
		if spec.GetAnyShape() && len(spec.GetShape()) > 0 {
			return invalid(at+".shape", "want no shape when any_shape is set")
		}
		if len(spec.GetShape()) > maxDimensions {
			return invalid(at+".shape", "want at most %d dimensions", maxDimensions)
		}
		fixed := make([]int64, 0, len(spec.GetShape()))
		for _, d := range spec.GetShape() {
			if d != -1 {
				fixed = append(fixed, d)
			}
		}
		if _, ok := tensor.Elements(fixed); !ok {
			return invalid(at+".shape", "%v is not a shape: want lengths from 0, or -1 for any, and a product that fits a tensor", spec.GetShape())
		}
	}
	return nil
}

func checkContainer(c *clipperv1.Container) error {
	const field = "version.container"
	if err := checkSource(field, c); err != nil {
		return err
	}
	if len(c.GetEnvironment()) > maxEnvironment {
		return invalid(field+".environment", "want at most %d variables, not %d", maxEnvironment, len(c.GetEnvironment()))
	}
	for name, value := range c.GetEnvironment() {
		switch {
		case !variable.MatchString(name):
			return invalid(field+".environment", "%.40q is not a name of a variable: want letters, digits and '_'", name)
		case strings.HasPrefix(name, "CLIPPER_"):
			return invalid(field+".environment", "%s: names that start with CLIPPER_ are the server's", name)
		case len(value) > maxText || strings.ContainsRune(value, 0):
			return invalid(field+".environment", "%s: want a value of at most %d bytes, without NUL", name, maxText)
		}
	}
	if err := checkResources(field+".resources", c.GetResources()); err != nil {
		return err
	}
	return checkDuration(field+".start_timeout", c.GetStartTimeout())
}

func checkResources(field string, r *clipperv1.Resources) error {
	const (
		mostCPUs    = 4096
		leastMemory = 8 << 20 // A container engine needs some itself.
		mostMemory  = 1 << 50
		mostGPUs    = 1024
	)
	switch {
	case !(r.GetCpus() >= 0 && r.GetCpus() <= mostCPUs) || r.GetCpus() > 0 && r.GetCpus() < 0.01:
		return invalid(field+".cpus", "%v: want 0 for no limit, or 0.01 to %d", r.GetCpus(), mostCPUs)
	case r.GetMemoryBytes() > mostMemory || r.GetMemoryBytes() > 0 && r.GetMemoryBytes() < leastMemory:
		return invalid(field+".memory_bytes", "%d: want 0 for no limit, or at least %d", r.GetMemoryBytes(), leastMemory)
	case r.GetGpus() > mostGPUs:
		return invalid(field+".gpus", "%d: want at most %d", r.GetGpus(), mostGPUs)
	}
	return nil
}

func checkSource(field string, c *clipperv1.Container) error {
	switch s := c.GetSource().(type) {
	case *clipperv1.Container_Adapter:
		if err := CheckName(field+".adapter.framework", s.Adapter.GetFramework()); err != nil {
			return err
		}
		// Only the adapter knows whether it needs a saved model.
		path := s.Adapter.GetModelPath()
		if path == "" {
			return nil
		}
		if err := checkText(field+".adapter.model_path", "", path); err != nil {
			return err
		}
		return checkAbsolute(field+".adapter.model_path", path)
	case *clipperv1.Container_Command:
		arguments := s.Command.GetArguments()
		if len(arguments) > maxArguments {
			return invalid(field+".command.arguments", "want at most %d, not %d", maxArguments, len(arguments))
		}
		if len(arguments) == 0 || arguments[0] == "" {
			return missing(field+".command.arguments", "give the program and its arguments")
		}
		for i, a := range arguments {
			if len(a) > maxText || strings.ContainsRune(a, 0) {
				return invalid(field+".command.arguments["+strconv.Itoa(i)+"]", "want at most %d bytes, without NUL", maxText)
			}
		}
		if strings.ContainsRune(arguments[0], filepath.Separator) {
			if err := checkAbsolute(field+".command.arguments[0]", arguments[0]); err != nil {
				return err
			}
		}
		if d := s.Command.GetDirectory(); d != "" {
			if err := checkText(field+".command.directory", "", d); err != nil {
				return err
			}
			return checkAbsolute(field+".command.directory", d)
		}
		return nil
	case *clipperv1.Container_Address:
		at := field + ".address.address"
		return CheckAddress(at, s.Address.GetAddress())
	case *clipperv1.Container_Registered:
		return nil
	case *clipperv1.Container_Image:
		return checkText(field+".image.reference", "give the image's reference", s.Image.GetReference())
	}
	return missing(field, "give one of adapter, command, address, image and registered")
}

func checkText(field, want, text string) error {
	if text == "" {
		return missing(field, want)
	}
	if len(text) > maxText || strings.ContainsRune(text, 0) {
		return invalid(field, "want at most %d bytes, without NUL", maxText)
	}
	return nil
}

func checkAbsolute(field, path string) error {
	if !filepath.IsAbs(path) {
		return invalid(field, "%q is not an absolute path: the server does not know the caller's directory", path)
	}
	return nil
}

// CheckAddress refuses what is no address of a container.
func CheckAddress(field, address string) error {
	if err := checkText(field, `give "host:port", "tls://host:port" or "unix:/path"`, address); err != nil {
		return err
	}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return checkAbsolute(field, path)
	}
	host, port, err := net.SplitHostPort(strings.TrimPrefix(address, "tls://"))
	if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || portErr != nil || n == 0 {
		return invalid(field, `%q is not an address: want "host:port", "tls://host:port" or "unix:/path"`, address)
	}
	return nil
}
