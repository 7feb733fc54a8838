// Command im-services runs the whole system in the foreground, on one machine,
// with nothing installed but Go:
//
//	cp config.yaml.test config.yaml
//	go run main.go
//
// Ctrl-C stops it. It is `make up` for people who want to watch; the services
// themselves are in cmd/, each a process of its own here too.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"im-services/internal/cluster"
	"im-services/internal/platform/config"
)

// Config is config.yaml; every key can also be set as IM_<KEY>.
type Config struct {
	Port     int    `yaml:"port"`     // public; the hundred ports from it on are used
	State    string `yaml:"state"`    // folder for data and logs
	Gateways int    `yaml:"gateways"` // how many of each
	Auths    int    `yaml:"auths"`
	Friends  int    `yaml:"friends"`
	Logics   int    `yaml:"logics"`
}

const file = "config.yaml"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "im-services:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	cfg, err := load(file)
	if err != nil {
		return err
	}
	c, err := cluster.Start(ctx, cluster.Options{
		StateDir: cfg.State, BasePort: cfg.Port, Progress: os.Stdout, External: cluster.ExternalFromEnv(),
		Gateways: cfg.Gateways, Auths: cfg.Auths, Friends: cfg.Friends, Logics: cfg.Logics,
	})
	if errors.Is(err, cluster.ErrRunning) {
		return fmt.Errorf("%w: make ps shows it, make down stops it", err)
	}
	if err != nil {
		return err
	}
	defer c.Stop()
	_, _ = fmt.Fprintf(os.Stdout, "\nready; Ctrl-C stops it\n%s\n", c.Info().Places())
	<-ctx.Done()
	return nil
}

// load reads a configuration; a missing file means the defaults.
func load(path string) (Config, error) {
	cfg := Config{Port: 8000, State: ".local"}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		path = ""
	}
	return cfg, config.Load(path, &cfg)
}
