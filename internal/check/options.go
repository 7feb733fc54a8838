package check

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Options say what to run. The zero value runs half a minute against a cluster
// of its own, with every kind of fault.
type Options struct {
	// Seed fixes the workload and the schedule of faults; 0: from the clock.
	Seed uint64
	// Duration is how long people talk, the warm-up included; default 30s.
	// Healing and reading come on top.
	Duration time.Duration
	// Base is the address of a running system, http(s)://host:port; several are
	// separated by commas. Empty: a cluster is started, and removed in the end.
	// A running system must be in debug mode, so that accounts can be made.
	Base string
	// DSN is the MySQL server of the system at Base, for the audit; may be empty.
	DSN string
	// Faults selects what is done to an own cluster; see ParseFaults. Empty: all.
	Faults string
	// Replica gives the database of an own cluster a replica, and fails over to it.
	// A Schedule that does so turns it on.
	Replica bool
	// Schedule, if set, is done instead of what follows from the seed and Faults.
	Schedule *Schedule
	// Tags are build tags for the services of an own cluster.
	Tags []string
	// Env are settings for every process of an own cluster.
	Env map[string]string
	// Users is how many people talk; default 12, at least 6.
	Users int
	// Rate is how many messages they send per second, all together; default 800.
	Rate int
	// Gap is the mean pause between two faults; default 600ms.
	Gap time.Duration
	// Overload makes an overload when people have stopped talking; nil: if they
	// talk for five minutes at least, to a cluster of our own.
	Overload *bool
	// Bundle is the folder for the history, the report and what a failure leaves;
	// default: a folder of .local/check, removed if the verdict is green.
	Bundle string
	// Keep keeps the bundle of a green run, too.
	Keep bool
	// Progress receives lines for people; nil: nobody.
	Progress io.Writer
	Bounds   Bounds
}

func (o Options) withDefaults() Options {
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano()) //nolint:gosec // positive
	}
	if o.Duration <= 0 && o.Schedule != nil {
		o.Duration = o.Schedule.length()
	}
	if o.Duration <= 0 {
		o.Duration = 30 * time.Second
	}
	if o.Users == 0 {
		o.Users = 12
	}
	o.Users = max(o.Users, 6)
	if o.Rate <= 0 {
		o.Rate = 800
	}
	if o.Gap <= 0 {
		o.Gap = 600 * time.Millisecond
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	o.Bounds = o.Bounds.withDefaults()
	return o
}

// overloads reports whether an overload is made.
func (o *Options) overloads() bool {
	if o.Overload != nil {
		return *o.Overload
	}
	return o.Base == "" && o.Duration >= overloadLong
}

// command is the line that repeats the run whose bundle is dir.
func (o *Options) command(dir string) string {
	var b strings.Builder
	b.WriteString("go run ./cmd/check-delivery")
	add := func(name, value string) { b.WriteString(" -" + name + " " + value) }
	add("seed", uintText(o.Seed))
	add("time", o.Duration.String())
	add("users", intText(int64(o.Users)))
	add("rate", intText(int64(o.Rate)))
	add("gap", o.Gap.String())
	if o.Base != "" {
		add("base", o.Base)
	}
	if o.Overload != nil {
		fmt.Fprintf(&b, " -overload=%t", *o.Overload)
	}
	if o.Faults != "" {
		add("faults", o.Faults)
	}
	if o.Replica && o.Schedule == nil {
		b.WriteString(" -replica")
	}
	if o.Schedule != nil {
		add("schedule", filepath.Join(dir, scheduleFile))
	}
	if len(o.Tags) > 0 {
		add("tags", strings.Join(o.Tags, ","))
	}
	for k, v := range o.Env {
		add("env", k+"="+v)
	}
	return b.String()
}

// folder makes the bundle's folder.
func (o *Options) folder(root string) (string, error) {
	dir := o.Bundle
	if dir == "" {
		dir = filepath.Join(root, ".local", "check", uintText(o.Seed))
	}
	return dir, os.MkdirAll(dir, 0o750)
}
