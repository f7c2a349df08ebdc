// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/loadgen"
)

// full is a report with everything in it.
func full() *loadgen.Report {
	latency := loadgen.Latency{Count: 1000, Mean: 3, Min: 1, P50: 2, P75: 3, P90: 4, P95: 5, P99: 20, P999: 90, P9999: 100, Max: 1200}
	r := &loadgen.Report{
		Version: "v1", Started: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC), Loop: "open", Interval: 1,
		Settings: []loadgen.Setting{{Name: "target", Value: `<script>alert(1)</script>`}, {Name: "protocol", Value: "grpc"}},
		Counts:   loadgen.Counts{Asked: 1010, Answered: 1000, Defaults: 7, Errors: 10}, Latency: latency,
		Rates: loadgen.Rates{Asked: 101, Sent: 101, Answered: 100}, Defaults: map[string]int{"DEADLINE": 7},
		Errors:       []loadgen.ErrorCount{{Reason: "OVERLOADED", Count: 10, Example: `<b>x</b>`}},
		Stages:       []loadgen.StageReport{{Stage: "100@5s", Latency: latency}, {Stage: "100..200@5s", Latency: latency}},
		Distribution: []loadgen.Quantile{{Percent: 0, Latency: 1}, {Percent: 90, Latency: 4}, {Percent: 99, Latency: 20}, {Percent: 99.9, Latency: 90}, {Percent: 100, Latency: 1200}},
		Feedback:     &loadgen.FeedbackReport{Sent: 5, Accepted: 4, Errors: []loadgen.ErrorCount{{Reason: "FEEDBACK_ID_EXPIRED", Count: 1}}, Latency: latency},
		Warnings:     []string{"the generator was late"},
		Objectives:   []loadgen.Objective{{Name: "p99", Bar: "10ms", Measured: "20ms"}, {Name: "errors", Bar: "1%", Measured: "1%", Met: true}},
	}
	for i := range 10 {
		p := loadgen.Point{Seconds: float64(i), Rates: loadgen.Rates{Asked: 101, Answered: 100 - float64(i)}, P50: 2, P99: 20 + float64(i), Max: 1200, Errors: float64(i)}
		if i == 4 {
			p = loadgen.Point{Seconds: 4} // Nothing was due.
		}
		r.Timeline = append(r.Timeline, p)
	}
	r.Compare(&loadgen.Report{Latency: latency, Distribution: r.Distribution[:3]})
	return r
}

var charts = regexp.MustCompile(`(?s)<svg.*?</svg>`)

func TestRender(t *testing.T) {
	text, err := Render(full())
	require.NoError(t, err)
	html := string(text)
	for _, part := range []string{
		"20ms", "1.2s", "99.9%", "100..200@5s", "DEADLINE", "OVERLOADED", "FEEDBACK_ID_EXPIRED", "the generator was late", `class="missed"`, `class="met"`,
		"Compared with", "prefers-color-scheme: dark", "Content-Security-Policy",
	} {
		require.Contains(t, html, part)
	}
	require.NotContains(t, html, "<script>")
	require.NotContains(t, html, `<b>x</b>`)
	require.NotRegexp(t, `(src|href)\s*=|url\(|@import|https?:`, html, "it needs nothing else")
	require.NotRegexp(t, `NaN|Inf|%!`, html)
	all := charts.FindAllString(html, -1)
	require.Len(t, all, 3)
	for _, svg := range all {
		wellFormed(t, svg)
	}
	require.Equal(t, 2, strings.Count(all[2], "<polyline"), "this run and the one before")
}

func wellFormed(t *testing.T, svg string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
	}
}

// A run of which nothing came is a page too.
func TestRender_empty(t *testing.T) {
	text, err := Render(&loadgen.Report{Settings: []loadgen.Setting{{Name: "target", Value: "x"}}})
	require.NoError(t, err)
	require.NotRegexp(t, `NaN|Inf|%!`, string(text))
	require.Len(t, charts.FindAllString(string(text), -1), 3)
}

// TestRender_browser has a browser lay the page out, in light and in dark, and looks at what it made of it.
// CLIPPER_TEST_SCREENSHOT names a folder that pictures are written to.
func TestRender_browser(t *testing.T) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed, so the report was not tested in a browser: apt-get install chromium")
	}
	text, err := Render(full())
	require.NoError(t, err)
	dir := t.TempDir()
	for scheme, dark := range map[string]string{"light": "", "dark": "--force-dark-mode"} {
		// A page of the test's own looks into the report, which itself runs nothing.
		probe := strings.Replace(string(text), `default-src 'none'; style-src 'unsafe-inline'`, `default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'`, 1)
		probe = strings.Replace(probe, "</body>", `<script>
			const charts = [...document.querySelectorAll('svg')].map((s) => s.getBoundingClientRect()).filter((r) => r.width > 500 && r.height > 100).length;
			const lines = [...document.querySelectorAll('polyline')].filter((l) => l.getTotalLength() > 100 && getComputedStyle(l).stroke !== 'none').length;
			const wide = document.documentElement.scrollWidth > innerWidth;
			document.body.dataset.seen = [charts, lines, wide, getComputedStyle(document.body).backgroundColor].join(' ');
		</script></body>`, 1)
		file := filepath.Join(dir, scheme+".html")
		require.NoError(t, os.WriteFile(file, []byte(probe), 0o600))
		args := []string{
			"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
			"--window-size=1000,2200", "--user-data-dir=" + t.TempDir(), "--blink-settings=preferredColorScheme=" + map[string]string{"light": "1", "dark": "0"}[scheme],
		}
		if dark != "" {
			args = append(args, dark)
		}
		address := (&url.URL{Scheme: "file", Path: file}).String()
		var seen bytes.Buffer
		cmd := exec.Command(path, append(args, "--dump-dom", address)...)
		cmd.Stdout = &seen
		require.NoError(t, cmd.Run())
		background := map[string]string{"light": "rgb(255, 255, 255)", "dark": "rgb(15, 20, 27)"}[scheme]
		// 4 lines of rates, of which defaults are 0 throughout and still drawn, 3 of latencies, 2 distributions.
		require.Contains(t, seen.String(), `data-seen="3 9 false `+background+`"`)
		if folder := os.Getenv("CLIPPER_TEST_SCREENSHOT"); folder != "" {
			require.NoError(t, exec.Command(path, append(args, "--screenshot="+filepath.Join(folder, scheme+".png"), address)...).Run())
		}
	}
}
