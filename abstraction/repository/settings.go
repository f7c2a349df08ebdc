// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/config"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// settings is what a settings file may say. That of a version is read over that of its model, so each
// setting of it replaces the model's. docs/models.md describes them.
type settings struct {
	Framework  string   `yaml:"framework"`
	File       string   `yaml:"file"`
	Command    []string `yaml:"command"`
	Address    string   `yaml:"address"`
	Image      string   `yaml:"image"`
	Registered bool     `yaml:"registered"`

	Environment  map[string]string `yaml:"environment"`
	StartTimeout time.Duration     `yaml:"start_timeout"`
	Resources    struct {
		CPUs   float64      `yaml:"cpus"`
		Memory config.Bytes `yaml:"memory"`
		GPUs   uint32       `yaml:"gpus"`
	} `yaml:"resources"`

	Replicas *uint32 `yaml:"replicas"`
	Homes    uint32  `yaml:"homes"`
	// Autoscaling is nil when the replicas are not Clipper's to choose.
	Autoscaling *struct {
		MinReplicas    uint32        `yaml:"min_replicas"`
		MaxReplicas    uint32        `yaml:"max_replicas"`
		TargetLoad     float64       `yaml:"target_load"`
		ScaleDownDelay time.Duration `yaml:"scale_down_delay"`
		IdleTimeout    time.Duration `yaml:"idle_timeout"`
	} `yaml:"autoscaling"`
	Batching struct {
		Policy           string        `yaml:"policy"`
		MaxBatchRows     uint32        `yaml:"max_batch_rows"`
		LatencyObjective time.Duration `yaml:"latency_objective"`
		MaxInFlight      uint32        `yaml:"max_in_flight"`
		MaxQueueRows     uint32        `yaml:"max_queue_rows"`
		MaxDelay         time.Duration `yaml:"max_delay"`
		AutoDelay        bool          `yaml:"auto_delay"`
	} `yaml:"batching"`
	Cache  *bool `yaml:"cache"`
	WarmUp struct {
		Samples   []any         `yaml:"samples"`
		TimeLimit time.Duration `yaml:"time_limit"`
		Disabled  bool          `yaml:"disabled"`
	} `yaml:"warm_up"`
	Signature struct {
		Inputs  []tensorSettings `yaml:"inputs"`
		Outputs []tensorSettings `yaml:"outputs"`
	} `yaml:"signature"`
	Labels map[string]string `yaml:"labels"`

	Hold     bool          `yaml:"hold"`
	Versions versionPolicy `yaml:"versions"`
}

// tensorSettings describes an input or an output. Without a shape it may have any.
type tensorSettings struct {
	Name  string   `yaml:"name"`
	Type  string   `yaml:"type"`
	Shape *[]int64 `yaml:"shape"`
}

// versionPolicy says which versions of a model are deployed.
type versionPolicy struct {
	Latest int      `yaml:"latest"`
	All    bool     `yaml:"all"`
	Only   []string `yaml:"only"`
}

// check refuses a policy that contradicts itself.
func (p versionPolicy) check() error {
	given := 0
	for _, is := range []bool{p.Latest != 0, p.All, len(p.Only) > 0} {
		if is {
			given++
		}
	}
	if given > 1 {
		return errors.New("versions: latest, all and only exclude each other")
	}
	if p.Latest < 0 || p.Latest > 1000 {
		return fmt.Errorf("versions.latest: want 1 to 1000, not %d", p.Latest)
	}
	return nil
}

// count is how many versions the policy wants at most; 0 is no limit.
func (p versionPolicy) count() int {
	if p.All || len(p.Only) > 0 {
		return 0
	}
	return max(p.Latest, 1)
}

// unknown is what the library says of a key that is not known.
var unknown = regexp.MustCompile(`field (\S+) not found in type \S+`)

// parse reads a settings file over what is set already.
func (s *settings) parse(text []byte) error {
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(s); err != nil && !errors.Is(err, io.EOF) { // An empty file sets nothing.
		var types *yaml.TypeError
		if errors.As(err, &types) { // Its own text begins with the name of the library and has types of Go.
			return errors.New(unknown.ReplaceAllString(strings.Join(types.Errors, "; "), "$1 is no setting"))
		}
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return errors.New("want one document")
	}
	return s.Versions.check()
}

// version returns the version to deploy. Its files are, or will be, in dir.
func (s *settings) version(v Version, c *content, dir string, decode DecodeSample) (*clipperv1.ModelVersion, error) {
	container, err := s.container(v, c, dir)
	if err != nil {
		return nil, err
	}
	container.Environment = s.Environment
	container.StartTimeout = duration(s.StartTimeout)
	if r := s.Resources; r.CPUs != 0 || r.Memory != 0 || r.GPUs != 0 {
		container.Resources = &clipperv1.Resources{Cpus: r.CPUs, MemoryBytes: uint64(r.Memory), Gpus: r.GPUs} //nolint:gosec // Sizes are not negative.
	}
	b := s.Batching
	version := &clipperv1.ModelVersion{
		Model: v.Model, Version: v.Version, Container: container, Replicas: s.Replicas, Homes: s.Homes, Labels: map[string]string{},
		Batching: &clipperv1.Batching{
			Policy: b.Policy, MaxBatchRows: b.MaxBatchRows, LatencyObjective: duration(b.LatencyObjective), MaxInFlight: b.MaxInFlight,
			MaxQueueRows: b.MaxQueueRows, MaxDelay: duration(b.MaxDelay), AutoDelay: b.AutoDelay,
		},
		Cache:  &clipperv1.Cache{Disabled: s.Cache != nil && !*s.Cache},
		WarmUp: &clipperv1.WarmUp{Disabled: s.WarmUp.Disabled, TimeLimit: duration(s.WarmUp.TimeLimit)},
	}
	if a := s.Autoscaling; a != nil {
		version.Autoscaling = &clipperv1.Autoscaling{
			MinReplicas: a.MinReplicas, MaxReplicas: a.MaxReplicas, TargetLoad: a.TargetLoad,
			ScaleDownDelay: duration(a.ScaleDownDelay), IdleTimeout: duration(a.IdleTimeout),
		}
	}
	for name, value := range s.Labels {
		if strings.HasPrefix(name, labelPrefix) {
			return nil, fmt.Errorf("labels: %q: names that begin with %q are the repository's", name, labelPrefix)
		}
		version.Labels[name] = value
	}
	inputs, err := specs("signature.inputs", s.Signature.Inputs)
	if err != nil {
		return nil, err
	}
	outputs, err := specs("signature.outputs", s.Signature.Outputs)
	if err != nil {
		return nil, err
	}
	if len(inputs)+len(outputs) > 0 {
		version.Signature = &clipperv1.Signature{Inputs: inputs, Outputs: outputs}
	}
	for i, sample := range s.WarmUp.Samples {
		text, err := json.Marshal(sample)
		if err != nil {
			return nil, fmt.Errorf("warm_up.samples[%d]: want a number, a list, a string, or one of these for each named input", i)
		}
		tensors, err := decode(text, inputs)
		if err != nil {
			return nil, fmt.Errorf("warm_up.samples[%d]: %s", i, message(err))
		}
		version.WarmUp.Samples = append(version.WarmUp.Samples, &clipperv1.WarmUpSample{Tensors: tensors})
	}
	return version, nil
}

func (s *settings) container(v Version, c *content, dir string) (*clipperv1.Container, error) {
	container := &clipperv1.Container{}
	var given []string
	if s.Framework != "" {
		given = append(given, "framework")
		file, err := s.file(v, c)
		if err != nil {
			return nil, err
		}
		adapter := &clipperv1.Adapter{Framework: s.Framework}
		if file != "" {
			adapter.ModelPath = filepath.Join(dir, filepath.FromSlash(file))
		}
		container.Source = &clipperv1.Container_Adapter{Adapter: adapter}
	} else if s.File != "" {
		return nil, errors.New("file: goes with framework")
	}
	if len(s.Command) > 0 {
		given = append(given, "command")
		arguments := append([]string(nil), s.Command...)
		if strings.Contains(arguments[0], "/") && !filepath.IsAbs(arguments[0]) {
			arguments[0] = filepath.Join(dir, arguments[0])
		}
		container.Source = &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: arguments, Directory: dir}}
	}
	if s.Address != "" {
		given = append(given, "address")
		container.Source = &clipperv1.Container_Address{Address: &clipperv1.Address{Address: s.Address}}
	}
	if s.Image != "" {
		given = append(given, "image")
		container.Source = &clipperv1.Container_Image{Image: &clipperv1.Image{Reference: s.Image}}
	}
	if s.Registered {
		given = append(given, "registered")
		container.Source = &clipperv1.Container_Registered{Registered: &clipperv1.Registered{}}
	}
	switch len(given) {
	case 1:
		return container, nil
	case 0:
		return nil, fmt.Errorf("it does not say what serves the model: write framework, command, address, image or registered into %s/%s or %s/%s/%[2]s",
			v.Model, ConfigFile, v.Model, v.Version)
	}
	return nil, fmt.Errorf("%s exclude each other: a model comes from one place", strings.Join(given, ", "))
}

// file returns the saved model's path in the version's folder; empty when there is none, which some
// adapters need.
func (s *settings) file(v Version, c *content) (string, error) {
	prefix := v.Model + "/" + v.Version
	if s.File != "" {
		if !filepath.IsLocal(s.File) || path.Clean(s.File) != strings.TrimSuffix(s.File, "/") {
			return "", fmt.Errorf("file: %q: want a path within the version's folder", s.File)
		}
		file := path.Clean(s.File)
		if file != "." && !c.has(prefix+"/"+file) {
			return "", fmt.Errorf("file: there is no %q in the version's folder", s.File)
		}
		return file, nil
	}
	switch entries := c.entries(prefix); len(entries) {
	case 0:
		return "", nil
	case 1:
		return entries[0], nil
	default:
		return "", fmt.Errorf("which of %s is the saved model? Say so with file, or \"file: .\" for the folder itself", strings.Join(entries, ", "))
	}
}

func specs(field string, described []tensorSettings) ([]*clipperv1.TensorSpec, error) {
	var specs []*clipperv1.TensorSpec
	for i, d := range described {
		spec := &clipperv1.TensorSpec{Name: d.Name, AnyShape: d.Shape == nil}
		if d.Type != "" {
			var known bool
			if spec.DataType, known = tensor.ParseType(d.Type); !known {
				return nil, fmt.Errorf("%s[%d].type: %q is not a type: want one such as float32, int64 or string", field, i, d.Type)
			}
		}
		if d.Shape != nil {
			spec.Shape = *d.Shape
		}
		specs = append(specs, spec)
	}
	return specs, nil
}

func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
