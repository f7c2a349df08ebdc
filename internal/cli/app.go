// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

type appCommands struct {
	adminOptions

	Create appCreate `cmd:"" help:"Create an application."`
	List   appList   `cmd:"" help:"List applications."`
	Show   appShow   `cmd:"" help:"Show an application."`
	Update appUpdate `cmd:"" help:"Change what is given of an application."`
	Delete appDelete `cmd:"" help:"Delete an application and what it has learned."`
	State  appState  `cmd:"" help:"Show what an application has learned of its models."`

	Contexts     appContexts     `cmd:"" help:"List the users, sessions or devices that an application has learned of."`
	Export       appExport       `cmd:"" help:"Write everything that an application has learned, as JSON lines."`
	Reset        appReset        `cmd:"" help:"Forget what an application has learned."`
	Explain      appExplain      `cmd:"" help:"Show what was learned, decided and told lately."`
	Evaluate     appEvaluate     `cmd:"" help:"Say what another policy would have earned on logged traffic."`
	Correlations appCorrelations `cmd:"" help:"Show which models go wrong together."`
	Canary       appCanary       `cmd:"" help:"Show how far an application's canary has come."`
}

type appCreate struct {
	Name string `arg:"" optional:"" help:"The application; may be in --file instead."`
	appFlags
}

func (appCreate) Help() string {
	return `Flags win over --file, which holds an application in the JSON form of the API, or the same as YAML.

Examples:

    clipper app create digits --models svm,forest,knn:2 --default 0 --slo 50ms
    clipper app create price --models small,large --policy exp4 --param eta=0.3 --output number --range 0:1000 --default 100
    clipper app create --file digits.yaml`
}

func (a *appCreate) Run(c *client) error {
	app := &clipperv1.Application{}
	if _, err := a.change(c, app); err != nil {
		return err
	}
	if err := setName(app, a.Name); err != nil {
		return err
	}
	service, err := c.applications()
	if err != nil {
		return err
	}
	response, err := service.CreateApplication(c.ctx, &clipperv1.CreateApplicationRequest{Application: app})
	if err != nil {
		return err
	}
	return c.showApplication(response.GetApplication(), "Created "+response.GetApplication().GetName()+".")
}

// setName sets the application's name from the command line, which must not contradict the file.
func setName(app *clipperv1.Application, name string) error {
	switch {
	case name == "" && app.GetName() == "":
		return usagef("which application? Expected its NAME, or a --file that has one")
	case name != "" && app.GetName() != "" && name != app.GetName():
		return usagef("the file is of the application %q, not %q", app.GetName(), name)
	case name != "":
		app.Name = name
	}
	return nil
}

type appUpdate struct {
	Name  string `arg:"" optional:"" complete:"application" help:"The application; may be in --file instead."`
	Reset bool   `help:"Forget everything that was learned; feedback for earlier answers is refused."`
	appFlags
}

func (appUpdate) Help() string {
	return `What is not given stays as it is. What was learned is kept for the models that stay, unless --reset is given.
Another policy goes on from what it has in common with the one before.

Examples:

    clipper app update digits --models svm,forest,knn
    clipper app update digits --slo 80ms --confidence 0.6
    clipper app update digits --policy thompson
    clipper app update digits --policy exp3 --reset`
}

func (a *appUpdate) Run(c *client) error {
	// A dry run says which application, and finds mistakes before the server is asked.
	app := &clipperv1.Application{}
	dry := a.appFlags
	if dry.Models == nil { // Which models there are, the server knows.
		dry.Weight, dry.Shadow, dry.Group = nil, nil, nil
	}
	if _, err := dry.change(c, app); err != nil {
		return err
	}
	a.text = dry.text
	if err := setName(app, a.Name); err != nil {
		return err
	}
	service, err := c.applications()
	if err != nil {
		return err
	}
	before, err := service.GetApplication(c.ctx, &clipperv1.GetApplicationRequest{Application: app.GetName()})
	if err != nil {
		return err
	}
	app = before.GetApplication()
	mask, err := a.change(c, app)
	if err != nil {
		return err
	}
	if len(mask) == 0 && !a.Reset {
		return usagef("nothing to change: expected a flag such as --slo 80ms, or --file")
	}
	response, err := service.UpdateApplication(c.ctx, &clipperv1.UpdateApplicationRequest{
		Application: app, UpdateMask: &fieldmaskpb.FieldMask{Paths: mask}, ResetState: a.Reset,
	})
	if err != nil {
		return err
	}
	return c.showApplication(response.GetApplication(), "Updated "+app.GetName()+".")
}

type appList struct{}

func (appList) Help() string { return "Example:\n\n    clipper app list" }

func (appList) Run(c *client) error {
	applications, err := c.listApplications()
	if err != nil {
		return err
	}
	if c.JSON {
		return c.writeJSON(&clipperv1.ListApplicationsResponse{Applications: applications})
	}
	if len(applications) == 0 {
		_, err := fmt.Fprintln(c.Stdout, "No applications. `clipper app create --help` says how to create one.")
		return err
	}
	return c.writeTable(applicationTable(applications))
}

func (c *client) listApplications() ([]*clipperv1.Application, error) {
	service, err := c.applications()
	if err != nil {
		return nil, err
	}
	var applications []*clipperv1.Application
	for request := (&clipperv1.ListApplicationsRequest{}); ; {
		page, err := service.ListApplications(c.ctx, request)
		if err != nil {
			return nil, err
		}
		applications = append(applications, page.GetApplications()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return applications, nil
		}
	}
}

func applicationTable(applications []*clipperv1.Application) *table {
	t := &table{header: []string{"APPLICATION", "POLICY", "MODELS", "OBJECTIVE", "DEFAULT", "AGE"}}
	for _, a := range applications {
		t.add(a.GetName(), a.GetPolicy().GetName(), membersOf(a), objective(a), defaultOutput(a), age(a.GetCreateTime()))
	}
	return t
}

func objective(a *clipperv1.Application) string {
	if a.GetLatencyObjective() == nil {
		return ""
	}
	return duration(a.GetLatencyObjective().AsDuration())
}

func defaultOutput(a *clipperv1.Application) string {
	if a.GetDefaultOutput() == nil {
		return ""
	}
	text, err := json.Marshal(a.GetDefaultOutput().AsInterface()) // Without the spaces that protojson varies.
	if err != nil {
		return "?"
	}
	return string(text)
}

// membersOf returns an application's models as --models, --weight and --shadow name them.
func membersOf(a *clipperv1.Application) string {
	texts := make([]string, len(a.GetModels()))
	for i, m := range a.GetModels() {
		text := m.GetModel()
		if m.GetVersion() != "" {
			text += ":" + m.GetVersion()
		}
		var notes []string
		if m.GetWeight() != 0 && m.GetWeight() != 1 {
			notes = append(notes, "weight "+number(m.GetWeight()))
		}
		if m.GetGroup() != "" {
			notes = append(notes, "group "+m.GetGroup())
		}
		if m.GetShadow() {
			notes = append(notes, "shadow")
		}
		if notes != nil {
			text += " (" + strings.Join(notes, ", ") + ")"
		}
		texts[i] = text
	}
	return strings.Join(texts, ", ")
}

func number(f float64) string { return strconv.FormatFloat(f, 'g', 6, 64) }

type appShow struct {
	Name string `arg:"" complete:"application" help:"The application."`
}

func (appShow) Help() string { return "Example:\n\n    clipper app show digits" }

func (a appShow) Run(c *client) error {
	service, err := c.applications()
	if err != nil {
		return err
	}
	response, err := service.GetApplication(c.ctx, &clipperv1.GetApplicationRequest{Application: a.Name})
	if err != nil {
		return err
	}
	return c.showApplication(response.GetApplication(), "")
}

// showApplication writes an application, below a title if there is one.
func (c *client) showApplication(a *clipperv1.Application, title string) error {
	if c.JSON {
		return c.writeJSON(a)
	}
	if title != "" {
		if _, err := fmt.Fprintln(c.Stdout, title); err != nil {
			return err
		}
	}
	policy := a.GetPolicy().GetName()
	if address := a.GetPolicy().GetAddress(); address != "" {
		policy += " at " + address
	}
	for _, name := range slices.Sorted(maps.Keys(a.GetPolicy().GetParameters())) {
		policy += fmt.Sprintf(" %s=%s", name, number(a.GetPolicy().GetParameters()[name]))
	}
	output := strings.ToLower(strings.TrimPrefix(a.GetOutput().GetKind().String(), "OUTPUT_KIND_"))
	if t := a.GetOutput().GetDataType(); t != clipperv1.DataType_DATA_TYPE_UNSPECIFIED {
		output += ", " + specs([]*clipperv1.TensorSpec{{DataType: t}})
	}
	if r := a.GetOutput().GetRange(); r != nil {
		output += fmt.Sprintf(", range %s:%s", number(r.GetMin()), number(r.GetMax()))
	}
	if classes := a.GetOutput().GetClasses(); len(classes) > 0 {
		output += ", classes " + strings.Join(classes, ",")
	}
	if loss := a.GetOutput().GetLoss(); loss != clipperv1.Loss_LOSS_UNSPECIFIED {
		output += ", loss " + strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(loss.String(), "LOSS_")), "_", "-")
	}
	t := &table{}
	t.add("name", a.GetName())
	if a.GetDescription() != "" {
		t.add("description", a.GetDescription())
	}
	t.add("models", membersOf(a))
	t.add("policy", policy)
	if statistics := a.GetPolicy().GetStatistics(); len(statistics) > 0 {
		t.add("keeps", strings.Join(statistics, ", "))
	}
	t.add("input", specs(a.GetInputs()))
	t.add("output", output)
	t.add("objective", objective(a))
	t.add("default", defaultOutput(a))
	if a.GetRefuseOverload() {
		t.add("overload", "refused, with the time to try again")
	}
	if text := limitsText(a.GetLimits()); text != "" {
		t.add("limits", text)
	}
	if a.GetAnswerEarly() {
		t.add("early", "answers as soon as the models that are missing cannot change it")
	}
	t.add("confidence", "at least "+number(a.GetConfidenceThreshold()))
	if a.GetFeedbackLifetime() != nil {
		t.add("feedback", "within "+duration(a.GetFeedbackLifetime().AsDuration()))
	}
	if life := a.GetContextLifetime(); life.AsDuration() > 0 {
		t.add("contexts", "kept for "+duration(life.AsDuration())+" after the last feedback")
	}
	if a.GetPriorWeight() != 0 {
		t.add("prior", prior(a.GetPriorWeight()))
	}
	if log := a.GetDecisionLog(); log != nil {
		t.add("decision log", number(log.GetSampleRate())+" of the decisions, "+enum(log.GetFormat(), "DECISION_LOG_FORMAT_"))
	}
	if a.GetCanary() != nil {
		t.add("canary", canaryOf(a.GetCanary()))
	}
	if a.GetCreateTime() != nil {
		t.add("created", a.GetCreateTime().AsTime().Format(time.RFC3339))
		t.add("updated", a.GetUpdateTime().AsTime().Format(time.RFC3339))
	}
	return t.write(c.Stdout, false)
}

// prior says what a context begins with.
func prior(weight float64) string {
	if weight < 0 {
		return "none: a context begins from nothing"
	}
	return number(weight) + " observations of the shared state"
}

type appDelete struct {
	Name string `arg:"" complete:"application" help:"The application."`
}

func (appDelete) Help() string { return "Example:\n\n    clipper app delete digits" }

func (a appDelete) Run(c *client) error {
	service, err := c.applications()
	if err != nil {
		return err
	}
	if _, err := service.DeleteApplication(c.ctx, &clipperv1.DeleteApplicationRequest{Application: a.Name}); err != nil {
		return err
	}
	if c.JSON {
		return c.writeJSON(map[string]string{"deleted": a.Name})
	}
	_, err = fmt.Fprintf(c.Stdout, "Deleted %s.\n", a.Name)
	return err
}

type appState struct {
	Name    string `arg:"" complete:"application" help:"The application."`
	Context string `placeholder:"NAME" help:"The user, session or device. Default: the state that all share."`
}

func (appState) Help() string {
	return "Examples:\n\n    clipper app state digits\n    clipper app state digits --context user-7"
}

// mostStatistics is how many statistics of a model a line may have; linucb has more.
const mostStatistics = 8

func (a appState) Run(c *client) error {
	service, err := c.applications()
	if err != nil {
		return err
	}
	state, err := service.GetSelectionState(c.ctx, &clipperv1.GetSelectionStateRequest{Application: a.Name, Context: a.Context})
	if err != nil {
		return err
	}
	if c.JSON {
		return c.writeJSON(state)
	}
	_, err = fmt.Fprintf(c.Stdout, "%s, after %s feedbacks\n\n", state.GetPolicy(), number(state.GetObservations()))
	if err != nil {
		return err
	}
	t := &table{header: []string{"MODEL", "WEIGHT", "PROBABILITY", "STATISTICS"}}
	for _, m := range state.GetModels() {
		var statistics []string
		for _, name := range slices.Sorted(maps.Keys(m.GetStatistics())) {
			if len(m.GetStatistics()) <= mostStatistics || name == "count" || name == "loss" {
				statistics = append(statistics, name+"="+number(m.GetStatistics()[name]))
			}
		}
		if hidden := len(m.GetStatistics()) - len(statistics); hidden > 0 {
			statistics = append(statistics, fmt.Sprintf("and %d more with --json", hidden))
		}
		t.add(m.GetModel(), fmt.Sprintf("%.4f", m.GetWeight()), fmt.Sprintf("%.4f", m.GetProbability()), strings.Join(statistics, " "))
	}
	return c.writeTable(t)
}
