// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	"context"
	"hash/crc32"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Labels of versions for what the original knows of them and we do not.
const (
	labelInputType = "legacy.input_type"
	labelLabels    = "legacy.labels"
	labelContainer = "legacy.container_name"
	labelPath      = "legacy.model_data_path"
)

// adaptive is the batch size that leaves it to the server.
const adaptive = -1

// pageSize is how many resources are listed at once.
const pageSize = 1000

// AdminDeps is what the management frontend works with. All are required.
type AdminDeps struct {
	Limits Limits
	// Applications and Models are the services; their connection checks the caller's credentials.
	Applications clipperv1.ApplicationServiceClient
	Models       clipperv1.ModelServiceClient
}

// AdminFrontend serves the original's REST API of management. Safe for concurrent use.
type AdminFrontend struct{ deps AdminDeps }

// NewAdminFrontend returns the handler of management.
func NewAdminFrontend(deps AdminDeps) *AdminFrontend { return &AdminFrontend{deps: deps} }

// call is what is behind a path: the schema of its body and what it does. It reads the body first and
// does nothing more when that has an error.
type call struct {
	schema string
	do     func(*AdminFrontend, context.Context, *body) reply
}

var calls = map[string]call{
	"add_app":                {addApplicationSchema, (*AdminFrontend).addApplication},
	"delete_app":             {nameSchema, (*AdminFrontend).deleteApplication},
	"add_model":              {addModelSchema, (*AdminFrontend).addModel},
	"delete_versioned_model": {versionSchema, (*AdminFrontend).deleteVersion},
	"set_model_version":      {versionSchema, (*AdminFrontend).setVersion},
	"add_model_links":        {linksSchema, (*AdminFrontend).addLinks},
	"delete_model_links":     {linksSchema, (*AdminFrontend).deleteLinks},
	"get_linked_models":      {applicationSchema, (*AdminFrontend).linkedModels},
	"get_all_applications":   {verboseSchema, (*AdminFrontend).allApplications},
	"get_application":        {nameSchema, (*AdminFrontend).application},
	"get_all_models":         {verboseSchema, (*AdminFrontend).allModels},
	"get_model":              {versionSchema, (*AdminFrontend).modelVersion},
	"get_all_containers":     {verboseSchema, (*AdminFrontend).allContainers},
	"get_container":          {containerSchema, (*AdminFrontend).container},
	"get_state":              {stateSchema, (*AdminFrontend).state},
}

// ServeHTTP implements http.Handler.
func (f *AdminFrontend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutPrefix(r.URL.EscapedPath(), "/admin/")
	if ok && name == "ping" {
		if r.Method != http.MethodGet {
			only(w, r, http.MethodGet)
			return
		}
		text(http.StatusOK, "PONG").write(w)
		return
	}
	c, known := calls[name]
	switch {
	case !ok || !known:
		nowhere(w, r)
	case r.Method != http.MethodPost:
		only(w, r, http.MethodPost)
	default:
		b := f.deps.Limits.decode(w, r)
		answer := c.do(f, calling(r), b)
		if b.err != nil {
			answer = text(http.StatusBadRequest, "%s", schemaError(b.err, c.schema))
		}
		answer.write(w)
	}
}

// refuse is the answer when our services refuse.
func refuse(err error) reply {
	code := httpCode(err)
	r := text(code, "%s", status.Convert(err).Message())
	if code == http.StatusInternalServerError {
		r = text(code, unexpected)
	}
	r.err = err
	return r
}

// is reports whether an error has a code.
func is(err error, code codes.Code) bool { return err != nil && status.Code(err) == code }

func (f *AdminFrontend) addApplication(ctx context.Context, b *body) reply {
	name, typeName, defaultOutput, micros := b.string("name"), b.string("input_type"), b.string("default_output"), b.int("latency_slo_micros")
	if b.err != nil {
		return reply{}
	}
	takes, ok := inputTypes[typeName]
	if !ok {
		return badType(typeName)
	}
	_, err := f.getApplication(ctx, name)
	if is(err, codes.NotFound) {
		err = f.ensureUnlinked(ctx)
	} else if err == nil {
		err = status.Error(codes.AlreadyExists, "")
	}
	if err != nil {
		return notAdded(name, err)
	}
	app := &clipperv1.Application{
		Name: name, Inputs: []*clipperv1.TensorSpec{takes.input()},
		LatencyObjective: durationpb.New(time.Duration(micros) * time.Microsecond),
		Models:           []*clipperv1.ApplicationModel{{Model: unlinked}},
	}
	textual(app, defaultOutput)
	if _, err := f.deps.Applications.CreateApplication(ctx, &clipperv1.CreateApplicationRequest{Application: app}); err != nil {
		return notAdded(name, err)
	}
	return text(http.StatusOK, "Successfully added application with name '%s'", name)
}

// notAdded says why an application was not added.
func notAdded(name string, err error) reply {
	switch status.Code(err) {
	case codes.AlreadyExists:
		return text(http.StatusBadRequest, "application '%s' already exists", name)
	case codes.Unavailable:
		return text(http.StatusBadRequest, "Error adding application '%s' to Redis", name)
	}
	return refuse(err)
}

func badType(name string) reply {
	return text(http.StatusBadRequest, "Invalid input type: '%s' is not bytes, integers, floats, doubles or strings", name)
}

// ensureUnlinked makes sure that there is the model of applications without one.
func (f *AdminFrontend) ensureUnlinked(ctx context.Context) error {
	_, err := f.deps.Models.GetModel(ctx, &clipperv1.GetModelRequest{Model: unlinked})
	if !is(err, codes.NotFound) {
		return err
	}
	_, err = f.deps.Models.DeployModel(ctx, &clipperv1.DeployModelRequest{Version: &clipperv1.ModelVersion{
		Model: unlinked, Version: "0", Replicas: proto.Uint32(0),
		Container: &clipperv1.Container{Source: &clipperv1.Container_Registered{Registered: &clipperv1.Registered{}}},
	}})
	if is(err, codes.AlreadyExists) { // Somebody else was faster.
		return nil
	}
	return err
}

func (f *AdminFrontend) deleteApplication(ctx context.Context, b *body) reply {
	name := b.string("name")
	if b.err != nil {
		return reply{}
	}
	_, err := f.deps.Applications.DeleteApplication(ctx, &clipperv1.DeleteApplicationRequest{Application: name})
	switch {
	case is(err, codes.NotFound) || name == "":
		return text(http.StatusBadRequest, "Application '%s' does not exist", name)
	case err != nil:
		return refuse(err)
	}
	return text(http.StatusOK, "Successfully deleted application with name '%s'", name)
}

// prohibited are the characters that the original's keys of models and versions are joined with.
const prohibited = ",:"

func (f *AdminFrontend) addModel(ctx context.Context, b *body) reply {
	model, name, labels := b.string("model_name"), b.string("model_version"), b.strings("labels")
	typeName, container, path := b.string("input_type"), b.string("container_name"), b.string("model_data_path")
	size := b.int("batch_size")
	if b.err != nil {
		return reply{}
	}
	if size != adaptive && size <= 0 {
		return text(http.StatusBadRequest, "The batch size must be positive or DEFAULT_BATCH_SIZE, which is -1")
	}
	takes, ok := inputTypes[typeName]
	if !ok {
		return badType(typeName)
	}
	if r, ok := checkNames(model, name, labels); !ok {
		return r
	}
	_, at, err := f.find(ctx, model, name)
	exists := text(http.StatusBadRequest, "model with name '%s' and version '%s' already exists", model, name)
	switch {
	case err != nil && !is(err, codes.NotFound):
		return refuse(err)
	case at != nil:
		return exists
	}
	apps, err := f.listApplications(ctx)
	if err != nil {
		return refuse(err)
	}
	for _, app := range apps {
		if has := typeOf(app.GetInputs()); slices.Contains(links(app), model) && has != takes {
			return text(http.StatusBadRequest, "Model with name '%s' is already linked to app '%s' using input type '%s'. The input type you provided for a new version of the model, '%s', is not compatible.",
				model, app.GetName(), has, takes)
		}
	}
	v := &clipperv1.ModelVersion{
		Model: model, Version: name,
		Container: &clipperv1.Container{Source: &clipperv1.Container_Registered{Registered: &clipperv1.Registered{}}},
		Labels: map[string]string{
			labelInputType: string(takes), labelLabels: strings.Join(labels, ","), labelContainer: container, labelPath: path,
		},
	}
	if size != adaptive {
		v.Batching = &clipperv1.Batching{Policy: "fixed", MaxBatchRows: uint32(size)}
	}
	if _, err := f.deps.Models.DeployModel(ctx, &clipperv1.DeployModelRequest{Version: v}); is(err, codes.AlreadyExists) {
		return exists
	} else if err != nil {
		return refuse(err)
	}
	// The newest version is the current one at once, whether it has a replica or not.
	if _, err := f.deps.Models.SetCurrentVersion(ctx, &clipperv1.SetCurrentVersionRequest{Model: model, Version: name}); err != nil {
		return refuse(err)
	}
	return text(http.StatusOK, "Successfully added model with name '%s' and input type '%s'", model, takes)
}

// checkNames refuses the names of a version and its labels that the original refuses.
func checkNames(model, version string, labels []string) (reply, bool) {
	names := [][2]string{{"model name", model}, {"model version", version}}
	for _, label := range labels {
		names = append(names, [2]string{"label", label})
	}
	for _, n := range names {
		if strings.ContainsAny(n[1], prohibited) {
			return text(http.StatusBadRequest, "Invalid %s supplied: %s. Contains one of: ',', ':'", n[0], n[1]), false
		}
	}
	return reply{}, true
}

// find returns a model and its version of a name, nil when it has none. NOT_FOUND: no such model.
func (f *AdminFrontend) find(ctx context.Context, model, name string) (*clipperv1.Model, *clipperv1.ModelVersion, error) {
	m, err := f.getModel(ctx, model)
	if err != nil {
		return nil, nil, err
	}
	for _, v := range m.GetVersions() {
		if v.GetVersion() == name {
			return m, v, nil
		}
	}
	return m, nil, nil
}

// getModel returns a model. NOT_FOUND: there is none, also when the name is one that none can have, or
// that of none.
func (f *AdminFrontend) getModel(ctx context.Context, name string) (*clipperv1.Model, error) {
	if name == unlinked {
		return nil, status.Error(codes.NotFound, "there is no such model")
	}
	response, err := f.deps.Models.GetModel(ctx, &clipperv1.GetModelRequest{Model: name})
	if is(err, codes.InvalidArgument) {
		err = status.Error(codes.NotFound, "there is no such model")
	}
	return response.GetModel(), err
}

// getApplication is as getModel.
func (f *AdminFrontend) getApplication(ctx context.Context, name string) (*clipperv1.Application, error) {
	response, err := f.deps.Applications.GetApplication(ctx, &clipperv1.GetApplicationRequest{Application: name})
	if is(err, codes.InvalidArgument) {
		err = status.Error(codes.NotFound, "there is no such application")
	}
	return response.GetApplication(), err
}

func (f *AdminFrontend) deleteVersion(ctx context.Context, b *body) reply {
	model, name := b.string("model_name"), b.string("model_version")
	if b.err != nil {
		return reply{}
	}
	absent := text(http.StatusBadRequest, "model with name '%s' and version '%s' does not exist", model, name)
	m, v, err := f.find(ctx, model, name)
	switch {
	case is(err, codes.NotFound) || err == nil && v == nil:
		return absent
	case err != nil:
		return refuse(err)
	}
	// The original leaves the current version at the one that is gone.
	if others := slices.DeleteFunc(slices.Clone(m.GetVersions()), func(o *clipperv1.ModelVersion) bool { return o.GetVersion() == name }); len(others) > 0 && m.GetCurrentVersion() == name {
		newest := others[len(others)-1].GetVersion()
		if _, err := f.deps.Models.SetCurrentVersion(ctx, &clipperv1.SetCurrentVersionRequest{Model: model, Version: newest}); err != nil {
			return refuse(err)
		}
	}
	_, err = f.deps.Models.DeleteModelVersion(ctx, &clipperv1.DeleteModelVersionRequest{Model: model, Version: name})
	switch {
	case is(err, codes.NotFound):
		return absent
	case err != nil:
		return refuse(err)
	}
	return text(http.StatusOK, "Successfully deleted model with name '%s' and version '%s'", model, name)
}

func (f *AdminFrontend) setVersion(ctx context.Context, b *body) reply {
	model, name := b.string("model_name"), b.string("model_version")
	if b.err != nil {
		return reply{}
	}
	_, v, err := f.find(ctx, model, name)
	switch {
	case is(err, codes.NotFound):
		return text(http.StatusBadRequest, "Cannot set version for nonexistent model '%s'", model)
	case err != nil:
		return refuse(err)
	case v == nil:
		return text(http.StatusBadRequest, "Cannot set non-existent version '%s' for model with name '%s'", name, model)
	}
	if _, err := f.deps.Models.SetCurrentVersion(ctx, &clipperv1.SetCurrentVersionRequest{Model: model, Version: name}); err != nil {
		return refuse(err)
	}
	return text(http.StatusOK, "Successfully set model with name '%s' to version '%s'", model, name)
}

// current returns a model's current version.
func current(m *clipperv1.Model) *clipperv1.ModelVersion {
	for _, v := range m.GetVersions() {
		if v.GetVersion() == m.GetCurrentVersion() {
			return v
		}
	}
	return nil
}

// versionType is what a version takes; "" when that is not known or nothing that the original knows.
func versionType(v *clipperv1.ModelVersion) inputType {
	if t, ok := v.GetLabels()[labelInputType]; ok {
		return inputType(t)
	}
	return typeOf(v.GetSignature().GetInputs())
}

func (f *AdminFrontend) addLinks(ctx context.Context, b *body) reply {
	name, models := b.string("app_name"), b.strings("model_names")
	if b.err != nil {
		return reply{}
	}
	app, err := f.getApplication(ctx, name)
	switch {
	case is(err, codes.NotFound):
		return text(http.StatusBadRequest, "No app with name '%s' exists.", name)
	case err != nil:
		return refuse(err)
	}
	var linked *clipperv1.Model
	for _, model := range models {
		m, err := f.getModel(ctx, model)
		switch {
		case is(err, codes.NotFound):
			return text(http.StatusBadRequest, "No model with name '%s' exists.", model)
		case err != nil:
			return refuse(err)
		}
		if has, wants := versionType(current(m)), typeOf(app.GetInputs()); has != "" && has != wants {
			return text(http.StatusBadRequest, "Model with name '%s' has incompatible input_type '%s'. Requested app to link to has input_type '%s'.", model, has, wants)
		}
		linked = m
	}
	switch {
	case len(models) > 1:
		return text(http.StatusBadRequest, "Applications must be linked with at most one model. Attempted to add links to %d models.", len(models))
	case len(models) == 0:
		return text(http.StatusBadRequest, "Please provide the name of the model that you want to link to the application '%s'", name)
	}
	if there := links(app); slices.Contains(there, models[0]) {
		return text(http.StatusBadRequest, "The model with name '%s' is already linked to '%s'", models[0], name)
	} else if len(there) > 0 {
		return text(http.StatusBadRequest, "A model with name %s is already linked to '%s'.", there[0], name)
	}
	fit(app, current(linked).GetSignature().GetOutputs())
	app.Models = []*clipperv1.ApplicationModel{{Model: models[0]}}
	if err := f.relink(ctx, app); err != nil {
		return refuse(err)
	}
	return text(http.StatusOK, "Successfully linked model with name '%s' to application '%s'", models[0], name)
}

// relink stores other models of an application, and outputs to go with them, unless somebody else has
// changed it.
func (f *AdminFrontend) relink(ctx context.Context, app *clipperv1.Application) error {
	_, err := f.deps.Applications.UpdateApplication(ctx, &clipperv1.UpdateApplicationRequest{
		Application: app,
		UpdateMask:  &fieldmaskpb.FieldMask{Paths: []string{"models", "output", "default_output", "description"}},
	})
	return err
}

func (f *AdminFrontend) deleteLinks(ctx context.Context, b *body) reply {
	name, models := b.string("app_name"), b.strings("model_names")
	if b.err != nil {
		return reply{}
	}
	app, err := f.getApplication(ctx, name)
	switch {
	case is(err, codes.NotFound):
		return text(http.StatusBadRequest, "No app with name %s exists.", name)
	case err != nil:
		return refuse(err)
	}
	there := links(app)
	for _, model := range models {
		if !slices.Contains(there, model) {
			return text(http.StatusBadRequest, "Cannot remove nonexistent link between app %s and model %s", name, model)
		}
	}
	if len(models) == 0 {
		return text(http.StatusOK, "Success!")
	}
	app.Models = slices.DeleteFunc(app.Models, func(m *clipperv1.ApplicationModel) bool { return slices.Contains(models, m.GetModel()) })
	if len(app.Models) == 0 {
		if err := f.ensureUnlinked(ctx); err != nil {
			return refuse(err)
		}
		app.Models = []*clipperv1.ApplicationModel{{Model: unlinked}}
		textual(app, defaultText(app))
	}
	if err := f.relink(ctx, app); err != nil {
		return refuse(err)
	}
	return text(http.StatusOK, "Success!")
}

func (f *AdminFrontend) linkedModels(ctx context.Context, b *body) reply {
	name := b.string("app_name")
	if b.err != nil {
		return reply{}
	}
	app, err := f.getApplication(ctx, name)
	switch {
	case is(err, codes.NotFound):
		return text(http.StatusBadRequest, "No application with name '%s' exists.", name)
	case err != nil:
		return refuse(err)
	}
	return reply{code: http.StatusOK, body: appendStrings(nil, links(app))}
}

func (f *AdminFrontend) listApplications(ctx context.Context) ([]*clipperv1.Application, error) {
	var all []*clipperv1.Application
	for token := ""; ; {
		page, err := f.deps.Applications.ListApplications(ctx, &clipperv1.ListApplicationsRequest{PageSize: pageSize, PageToken: token})
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetApplications()...)
		if token = page.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

// listVersions returns the versions of all models, and what is current of each.
func (f *AdminFrontend) listVersions(ctx context.Context) ([]*clipperv1.ModelVersion, error) {
	var all []*clipperv1.ModelVersion
	for token := ""; ; {
		page, err := f.deps.Models.ListModels(ctx, &clipperv1.ListModelsRequest{PageSize: pageSize, PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, m := range page.GetModels() {
			if m.GetName() != unlinked {
				all = append(all, m.GetVersions()...)
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

// listed is the answer to a call for all of something: their names, or all that is known of them.
func listed[T any](list []T, verbose bool, name func(T) string, whole func([]byte, T) []byte) reply {
	if verbose {
		return reply{code: http.StatusOK, body: appendList(nil, list, whole)}
	}
	return reply{code: http.StatusOK, body: appendList(nil, list, func(b []byte, item T) []byte { return appendString(b, name(item)) })}
}

// nothing is the answer to a call for one of something that is not there.
var nothing = reply{code: http.StatusOK, body: []byte("{}")}

func (f *AdminFrontend) allApplications(ctx context.Context, b *body) reply {
	verbose := b.bool("verbose")
	if b.err != nil {
		return reply{}
	}
	apps, err := f.listApplications(ctx)
	if err != nil {
		return refuse(err)
	}
	return listed(apps, verbose, (*clipperv1.Application).GetName, appendApplication)
}

func appendApplication(b []byte, a *clipperv1.Application) []byte {
	b = appendMember(append(b, '{'), "input_type", string(typeOf(a.GetInputs())))
	b = appendMember(b, "default_output", defaultText(a))
	b = strconv.AppendInt(appendKey(b, "latency_slo_micros"), a.GetLatencyObjective().AsDuration().Microseconds(), 10)
	b = appendMember(b, "name", a.GetName())
	return append(appendStrings(appendKey(b, "linked_models"), links(a)), '}')
}

func (f *AdminFrontend) application(ctx context.Context, b *body) reply {
	name := b.string("name")
	if b.err != nil {
		return reply{}
	}
	app, err := f.getApplication(ctx, name)
	switch {
	case is(err, codes.NotFound):
		return nothing
	case err != nil:
		return refuse(err)
	}
	return reply{code: http.StatusOK, body: appendApplication(nil, app)}
}

func (f *AdminFrontend) allModels(ctx context.Context, b *body) reply {
	verbose := b.bool("verbose")
	if b.err != nil {
		return reply{}
	}
	versions, err := f.listVersions(ctx)
	if err != nil {
		return refuse(err)
	}
	return listed(versions, verbose, versionID, appendVersion)
}

func versionID(v *clipperv1.ModelVersion) string { return v.GetModel() + ":" + v.GetVersion() }

func appendVersion(b []byte, v *clipperv1.ModelVersion) []byte {
	b = appendMember(append(b, '{'), "model_name", v.GetModel())
	b = appendMember(b, "model_version", v.GetVersion())
	b = appendMember(b, "input_type", string(versionType(v)))
	// No label is one label without text, as in the original.
	b = appendStrings(appendKey(b, "labels"), strings.Split(v.GetLabels()[labelLabels], ","))
	container, ok := v.GetLabels()[labelContainer]
	if !ok {
		container = v.GetContainer().GetImage().GetReference()
	}
	path, ok := v.GetLabels()[labelPath]
	if !ok {
		path = v.GetContainer().GetAdapter().GetModelPath()
	}
	b = appendMember(b, "container_name", container)
	b = appendMember(b, "model_data_path", path)
	return append(strconv.AppendBool(appendKey(b, "is_current_version"), v.GetCurrent()), '}')
}

func (f *AdminFrontend) modelVersion(ctx context.Context, b *body) reply {
	model, name := b.string("model_name"), b.string("model_version")
	if b.err != nil {
		return reply{}
	}
	_, v, err := f.find(ctx, model, name)
	switch {
	case is(err, codes.NotFound) || err == nil && v == nil:
		return nothing
	case err != nil:
		return refuse(err)
	}
	return reply{code: http.StatusOK, body: appendVersion(nil, v)}
}

// container is a replica that is connected.
type container struct {
	version *clipperv1.ModelVersion
	id      int64
}

// containersOf returns the containers of a version, by id.
func containersOf(v *clipperv1.ModelVersion) []container {
	var list []container
	for _, r := range v.GetReplicaStatus() {
		if s := r.GetState(); s == clipperv1.ReplicaState_REPLICA_STATE_READY || s == clipperv1.ReplicaState_REPLICA_STATE_DRAINING {
			list = append(list, container{v, replicaID(r.GetId())})
		}
	}
	slices.SortFunc(list, func(a, b container) int { return int(a.id - b.id) })
	return list
}

// replicaID is the number of a replica, which the original has: its own, or one made of its name.
func replicaID(id string) int64 {
	if n, err := strconv.ParseInt(id, 10, 32); err == nil {
		return n
	}
	return int64(crc32.ChecksumIEEE([]byte(id)) >> 1)
}

func (f *AdminFrontend) allContainers(ctx context.Context, b *body) reply {
	verbose := b.bool("verbose")
	if b.err != nil {
		return reply{}
	}
	versions, err := f.listVersions(ctx)
	if err != nil {
		return refuse(err)
	}
	var all []container
	for _, v := range versions {
		all = append(all, containersOf(v)...)
	}
	return listed(all, verbose, func(c container) string { return versionID(c.version) + ":" + strconv.FormatInt(c.id, 10) }, appendContainer)
}

func appendContainer(b []byte, c container) []byte {
	b = appendMember(append(b, '{'), "model_id", versionID(c.version))
	b = appendMember(b, "model_name", c.version.GetModel())
	b = appendMember(b, "model_version", c.version.GetVersion())
	b = strconv.AppendInt(appendKey(b, "model_replica_id"), c.id, 10)
	return append(appendMember(b, "input_type", string(versionType(c.version))), '}')
}

func (f *AdminFrontend) container(ctx context.Context, b *body) reply {
	model, name, id := b.string("model_name"), b.string("model_version"), b.int("replica_id")
	if b.err != nil {
		return reply{}
	}
	_, v, err := f.find(ctx, model, name)
	if err != nil && !is(err, codes.NotFound) {
		return refuse(err)
	}
	for _, c := range containersOf(v) {
		if c.id == id {
			return reply{code: http.StatusOK, body: appendContainer(nil, c)}
		}
	}
	return nothing
}

func (f *AdminFrontend) state(ctx context.Context, b *body) reply {
	name := b.string("app_name")
	b.int("uid") // There is a state for the user 0 only.
	if b.err != nil {
		return reply{}
	}
	app, err := f.getApplication(ctx, name)
	switch {
	case is(err, codes.NotFound):
		return reply{code: http.StatusOK}
	case err != nil:
		return refuse(err)
	}
	return text(http.StatusOK, "%s", defaultText(app))
}
