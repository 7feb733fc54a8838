// Command check-delivery makes people talk through the system while its
// processes and links fail, and says whether every promise of docs/guarantees.md
// was kept. Without -base it runs a cluster of its own; with it, it checks a
// running system in debug mode, without faults.
//
//	go run ./cmd/check-delivery -time 2m -seed 7
//	go run ./cmd/check-delivery -base http://127.0.0.1:8000
//	go run ./cmd/check-delivery -judge .local/check/7/history.jsonl
//	go run ./cmd/check-delivery -schedule .local/check/7/schedule.json
//	go run ./cmd/check-delivery -shrink .local/check/7/schedule.json
//
// The exit code is 0 if the verdict is green, 1 if it is red, 2 if there is none.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"im-services/internal/check"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	v, err := verdict(ctx, os.Args[1:])
	stop()
	if v != nil {
		_, _ = os.Stdout.WriteString(v.Text())
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "check-delivery:", err)
		os.Exit(2)
	case !v.Green():
		os.Exit(1)
	}
}

func verdict(ctx context.Context, args []string) (*check.Verdict, error) {
	var o check.Options
	var tags, judge, page, schedule, less string
	env := map[string]string{}
	f := flag.NewFlagSet("check-delivery", flag.ContinueOnError)
	f.Uint64Var(&o.Seed, "seed", 0, "fixes the workload and the schedule of faults; 0: from the clock")
	f.DurationVar(&o.Duration, "time", 0, "how long people talk (default 30s)")
	f.StringVar(&o.Base, "base", "", "addresses of a running system, separated by commas; empty: start a cluster")
	f.StringVar(&o.DSN, "dsn", "", "the MySQL server of the system at -base, for the audit of the database")
	f.StringVar(&o.Faults, "faults", "", "all, none, or a list of kinds, targets and kind:target pairs")
	f.BoolVar(&o.Replica, "replica", false, "give the database of the own cluster a replica, and fail over to it")
	f.StringVar(&tags, "tags", "", "build tags for the services of the own cluster")
	f.IntVar(&o.Users, "users", 0, "how many people (default 12)")
	f.IntVar(&o.Rate, "rate", 0, "messages per second, all together (default 800)")
	f.DurationVar(&o.Gap, "gap", 0, "mean pause between faults (default 600ms)")
	f.StringVar(&o.Bundle, "bundle", "", "folder for the history and the reports")
	f.BoolVar(&o.Keep, "keep", false, "keep history and logs of a green run")
	f.DurationVar(&o.Bounds.HealthyP99, "healthy-p99", 0, "bound of pushes while nothing fails (default 200ms)")
	f.BoolFunc("overload", "offer three times what the system takes in the end (default if people talk for 5m or longer)", func(s string) error {
		on, err := strconv.ParseBool(s)
		o.Overload = &on
		return err
	})
	f.StringVar(&judge, "judge", "", "judge this history again; nothing is run")
	f.StringVar(&page, "page", "", "with -judge: write the report as HTML here")
	f.StringVar(&schedule, "schedule", "", "do the faults of this schedule again, as a bundle has it")
	f.StringVar(&less, "shrink", "", "run again and again to find the fewest faults of this schedule that still turn the verdict red")
	f.Func("env", "NAME=value for every process of the own cluster; may be repeated", func(s string) error {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("want NAME=value")
		}
		env[name] = value
		return nil
	})
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	if judge != "" {
		return again(judge, page, o.Bounds)
	}
	if tags != "" {
		o.Tags = strings.Split(tags, ",")
	}
	o.Env, o.Progress = env, os.Stderr
	if schedule != "" && less != "" {
		return nil, errors.New("-schedule or -shrink, not both")
	}
	if file := schedule + less; file != "" {
		var err error
		if o.Schedule, err = check.ReadSchedule(file); err != nil {
			return nil, err
		}
		o.Seed = o.Schedule.Seed
	}
	if less != "" {
		return shrunk(ctx, o, less)
	}
	return check.Run(ctx, o)
}

// shrunk looks for the fewest faults that break a promise and prints them.
func shrunk(ctx context.Context, o check.Options, file string) (*check.Verdict, error) {
	least, v, err := check.Shrink(ctx, o)
	if err != nil {
		return nil, err
	}
	if v.Green() {
		_, _ = fmt.Fprintln(os.Stdout, "the whole schedule breaks nothing now")
		return v, nil
	}
	name := strings.TrimSuffix(file, ".json") + "-shrunk.json"
	if err := least.Write(name); err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintf(os.Stdout, "%d faults are enough, see %s:\n", len(least.Faults), name)
	for i := range least.Faults {
		_, _ = fmt.Fprintln(os.Stdout, "  "+least.Faults[i].String())
	}
	return v, nil
}

// again judges a history that was kept.
func again(history, page string, b check.Bounds) (*check.Verdict, error) {
	file, err := os.Open(history) //nolint:gosec // the user names it
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	events, err := check.ReadHistory(file)
	if err != nil {
		return nil, err
	}
	v := check.Judge(events, b)
	v.Command = "go run ./cmd/check-delivery -judge " + history
	if page != "" {
		err = os.WriteFile(page, []byte(v.Page()), 0o600)
	}
	return v, err
}
