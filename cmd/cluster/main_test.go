package main

import (
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	processes := []string{"nsqd", "nsqlookupd", "logic-1", "logic-2", "logic-migrate", "gateway-1"}
	for given, want := range map[string]string{
		"":                "",
		"logic":           "logic-1 logic-2",
		"logic-2":         "logic-2",
		"nsqd":            "nsqd",
		"gateway logic-1": "gateway-1 logic-1",
		"logic-1 logic":   "logic-1 logic-2",
		"logic-migrate":   "logic-migrate",
	} {
		names, err := expand(processes, strings.Fields(given))
		if got := strings.Join(names, " "); err != nil || got != want {
			t.Errorf("%q means %q, %v; want %q", given, got, err, want)
		}
	}
	for _, unknown := range []string{"logi", "logic-3", "nsq", "log-1", ""} {
		if names, err := expand(processes, []string{unknown}); err == nil {
			t.Errorf("%q means %v, want an error", unknown, names)
		} else if !strings.Contains(err.Error(), "logic-2") {
			t.Errorf("the error does not say what there is: %v", err)
		}
	}
}
