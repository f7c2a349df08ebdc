// SPDX-License-Identifier: Apache-2.0

package frontend_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The page is opened in a real browser, which fills in a query, sends it and reads the answer.
// CLIPPER_TEST_SCREENSHOT names a file that the page's picture is written to.
func TestDocs_browser(t *testing.T) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed, so the page for trying the API was not tested in a browser: apt-get install chromium")
	}
	f := start(t, newSelector(digits()))
	server := httptest.NewServer(f.query)
	defer server.Close()
	b := browse(t, path, server.URL+"/docs/")

	require.Equal(t, "4", b.evaluate(`wait(() => document.querySelectorAll('details.operation').length).then(String)`))
	require.Equal(t, "200 OK", b.evaluate(`(async () => {
		const view = document.getElementById('QueryService_Query');
		view.open = true;
		document.getElementById('QueryService_Query.application').value = 'digits';
		document.getElementById('QueryService_Query.body').value = '{"input": [0.25, 2], "id": "<b>"}';
		view.querySelector('button').click();
		return (await wait(() => view.querySelector('.status'))).textContent.split(' (')[0];
	})()`))
	require.JSONEq(t, `{"output":[0.25,2],"is_default":false,"confidence":1,"predictions":[],"id":"<b>"}`,
		b.evaluate(`document.querySelector('#QueryService_Query pre.text').textContent`))
	require.Contains(t, b.evaluate(`document.querySelector('#QueryService_Query .answer pre').textContent`),
		`/v1/applications/digits/query' -d '{"input":[0.25,2],"id":"<b>"}'`)
	require.Equal(t, "404 Not Found", b.evaluate(`(async () => {
		const view = document.getElementById('FeedbackService_Feedback');
		view.open = true;
		document.getElementById('FeedbackService_Feedback.application').value = 'no/thing';
		view.querySelector('button').click();
		return (await wait(() => view.querySelector('.status'))).textContent.split(' (')[0];
	})()`))
	require.Equal(t, "true", b.evaluate(`String(performance.getEntriesByType('resource').every((e) => e.name.startsWith(location.origin + '/')))`))
	require.Empty(t, b.evaluate(`violations.join('; ')`))
	if file := os.Getenv("CLIPPER_TEST_SCREENSHOT"); file != "" {
		picture, err := base64.StdEncoding.DecodeString(b.command("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true})["data"].(string))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, picture, 0o600))
	}
}

// browser is a page in a headless browser, spoken to in the DevTools protocol over a pipe.
type browser struct {
	t       *testing.T
	out     *os.File
	in      *bufio.Reader
	id      int
	session string
}

func browse(t *testing.T, path, url string) *browser {
	t.Helper()
	commands, out, err := os.Pipe()
	require.NoError(t, err)
	in, answers, err := os.Pipe()
	require.NoError(t, err)
	cmd := exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--window-size=1000,1500", "--user-data-dir="+t.TempDir(), "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{commands, answers} // Descriptors 3 and 4, by convention.
	require.NoError(t, cmd.Start())
	require.NoError(t, commands.Close())
	require.NoError(t, answers.Close())
	b := &browser{t: t, out: out, in: bufio.NewReader(in)}
	t.Cleanup(func() {
		_ = out.Close() // Without anyone to tell it what to do it ends, in whichever way.
		_ = cmd.Wait()
		_ = in.Close()
	})
	target := b.command("Target.createTarget", map[string]any{"url": "about:blank"})["targetId"]
	session, _ := b.command("Target.attachToTarget", map[string]any{"targetId": target, "flatten": true})["sessionId"].(string)
	b.session = session
	b.command("Page.enable", nil)
	b.command("Page.addScriptToEvaluateOnNewDocument", map[string]any{"source": `
		var violations = [];
		document.addEventListener('securitypolicyviolation', (e) => violations.push(e.violatedDirective + ' ' + e.blockedURI));
		window.addEventListener('error', (e) => violations.push(e.message));
		function wait(f) {
			return new Promise((resolve) => {
				const poll = () => { let v; try { v = f(); } catch {} if (v) resolve(v); else setTimeout(poll, 5); };
				poll();
			});
		}`})
	b.command("Page.navigate", map[string]any{"url": url})
	return b
}

// command sends a command and returns its result. Events are passed over.
func (b *browser) command(method string, params map[string]any) map[string]any {
	b.t.Helper()
	b.id++
	message := map[string]any{"id": b.id, "method": method, "params": params}
	if params == nil {
		delete(message, "params")
	}
	if b.session != "" {
		message["sessionId"] = b.session
	}
	text, err := json.Marshal(message)
	require.NoError(b.t, err)
	_, err = b.out.Write(append(text, 0))
	require.NoError(b.t, err)
	for {
		text, err := b.in.ReadString(0)
		require.NoError(b.t, err)
		var answer struct {
			ID     int
			Error  any
			Result map[string]any
		}
		require.NoError(b.t, json.Unmarshal([]byte(strings.TrimSuffix(text, "\x00")), &answer))
		if answer.ID == b.id {
			require.Nil(b.t, answer.Error, method)
			return answer.Result
		}
	}
}

// evaluate returns the string that an expression gives, or that its promise resolves to.
func (b *browser) evaluate(expression string) string {
	b.t.Helper()
	// A page that is still loading has not all functions: try until it has.
	for range 100 {
		answer := b.command("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true})
		if exception := answer["exceptionDetails"]; exception == nil {
			value, ok := answer["result"].(map[string]any)["value"].(string)
			require.True(b.t, ok, "%s gives %v", expression, answer)
			return value
		} else if text, _ := json.Marshal(exception); !strings.Contains(string(text), "wait is not defined") {
			b.t.Fatalf("%s: %s", expression, text)
		}
	}
	b.t.Fatal("the page did not load")
	return ""
}
