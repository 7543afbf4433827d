// Package alerts tests the rules that the chart gives to Prometheus, with Prometheus' own parser and engine: each is valid, each has
// its runbook, each uses metrics that exist, and each fires on the series that mean trouble and not on those that do not.
package alerts

import (
	"context"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
)

const (
	rulesFile = "../postroad/files/alerts.yaml"
	runbook   = "../../docs/operations/alerts.md"
	reference = "../../docs/reference/metrics.md"
)

// Series of an hour, a sample a minute, each for the pod main-0; what an alert must fire on, and what it must not.
var cases = []struct{ alert, trouble, calm string }{
	{"PostroadMailIsOld", "queue_oldest_seconds 0+60x60", "queue_oldest_seconds 0+10x60"},
	{"PostroadMailHeld", "queue_held_oldest_seconds 14000+60x60", "queue_held_oldest_seconds 7000+60x60"},
	{"PostroadUpstreamUnreachable", `upstream_up{upstream="ses"} 0x60`, `upstream_up{upstream="ses"} 1x60`},
	{"PostroadRouteFailedOver", `route_priority{route="all"} 2x60`, `route_priority{route="all"} 1x60`},
	{"PostroadUpstreamHolds", `upstream_holds_total{upstream="ses"} 0+1x60`, `upstream_holds_total{upstream="ses"} 1x60`},
	{"PostroadBudgetNearlySpent", `budget_used_percent{upstream="ses"} 96x60`, `budget_used_percent{upstream="ses"} 90x60`},
	{
		"PostroadManyFailures",
		"recipients_failed_total{upstream=\"ses\"} 0+20x60\nrecipients_delivered_total{upstream=\"ses\"} 0+100x60",
		"recipients_failed_total{upstream=\"ses\"} 0+5x60\nrecipients_delivered_total{upstream=\"ses\"} 0+100x60",
	},
	// Where nothing was ever delivered there is no series of deliveries.
	{"PostroadManyFailures", `recipients_failed_total{upstream="ses"} 0+1x60`, `recipients_failed_total{upstream="ses"} 7x60`},
	{"PostroadSpoolNotWritable", "spool_writable 0x60", "spool_writable 1x60"},
	{"PostroadMailQuarantined", "spool_quarantined 1x60", "spool_quarantined 0x60"},
	{"PostroadConfigurationRefused", "configurations_refused_total 0+1x60", "configurations_refused_total 3x60"},
	{"PostroadPasswordsGuessed", "authentication_failures_total 0+30x60", "authentication_failures_total 0+1x60"},
	{"PostroadConnectionsRefused", "connections_refused_total 0+1x60", "connections_refused_total 9x60"},
}

func rules(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(rulesFile, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.Default())
	for _, err := range errs {
		t.Error(err)
	}
	found := map[string]rulefmt.Rule{}
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			found[rule.Alert] = rule
		}
	}
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestEachAlertHasItsSectionInTheRunbookAndEachSectionItsAlert(t *testing.T) {
	headings := regexp.MustCompile(`(?m)^## (Postroad\w+)$`).FindAllStringSubmatch(read(t, runbook), -1)
	described := map[string]bool{}
	for _, heading := range headings {
		described[heading[1]] = true
	}
	rules := rules(t)
	for name, rule := range rules {
		if !described[name] {
			t.Errorf("%s has no section in %s", name, runbook)
		}
		if want := "docs/operations/alerts.md#" + strings.ToLower(name); rule.Annotations["runbook"] != want {
			t.Errorf("the runbook of %s is %q, not %q", name, rule.Annotations["runbook"], want)
		}
	}
	for name := range described {
		if _, ok := rules[name]; !ok {
			t.Errorf("%s describes %s, which is no alert", runbook, name)
		}
	}
}

func TestEachMetricThatAnAlertUsesIsInTheReference(t *testing.T) {
	known := read(t, reference)
	for name, rule := range rules(t) {
		for _, metric := range regexp.MustCompile(`postroad_relay_\w+`).FindAllString(rule.Expr, -1) {
			if !strings.Contains(known, "`"+metric+"`") {
				t.Errorf("%s uses %s, which no relay exports", name, metric)
			}
		}
	}
}

func TestEachAlertFiresOnTroubleAndOnNothingElse(t *testing.T) {
	untested := rules(t)
	for _, c := range cases {
		rule, ok := rules(t)[c.alert]
		if !ok {
			t.Errorf("there is no alert %s", c.alert)
			continue
		}
		delete(untested, c.alert)
		if !fires(t, rule.Expr, c.trouble) {
			t.Errorf("%s does not fire on %s", c.alert, c.trouble)
		}
		if fires(t, rule.Expr, c.calm) {
			t.Errorf("%s fires on %s", c.alert, c.calm)
		}
	}
	for name := range untested {
		t.Errorf("%s is not tested", name)
	}
}

// fires tells whether the expression holds for any pod at the end of the hour.
func fires(t *testing.T, expression, series string) bool {
	t.Helper()
	load := "load 1m\n"
	for line := range strings.Lines(series) {
		name, samples, _ := strings.Cut(strings.TrimSpace(line), " ")
		metric, labels, _ := strings.Cut(strings.TrimSuffix(name, "}"), "{")
		load += `  postroad_relay_` + metric + `{namespace="mail",pod="main-0",` + labels + `} ` + samples + "\n"
	}
	storage := promqltest.LoadedStorage(t, load)
	engine := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	query, err := engine.NewInstantQuery(context.Background(), storage, nil, expression, time.Unix(3600, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer query.Close()
	vector, err := query.Exec(context.Background()).Vector()
	if err != nil {
		t.Fatal(err)
	}
	return len(vector) > 0
}
