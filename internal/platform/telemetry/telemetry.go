// Package telemetry gives a process its logger, its metrics registry and its
// debug listener.
//
// The debug listener is apart from service traffic. It serves /metrics,
// /healthz (the process runs), /readyz (the service is ready, see SetReady)
// and, on loopback addresses only, /debug/pprof.
package telemetry

import (
	"context"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is the yaml section "telemetry".
type Config struct {
	LogLevel    string `yaml:"log_level"`    // debug, info (default), warn, error
	LogFormat   string `yaml:"log_format"`   // text (default) or json
	DebugListen string `yaml:"debug_listen"` // host:port; empty: no debug listener
}

// Telemetry is shared by everything in the process. All methods are safe for
// concurrent use and on a nil *Telemetry, which logs nothing and registers
// metrics nowhere.
type Telemetry struct {
	Log      *slog.Logger
	Registry *prometheus.Registry

	debug *debugServer
}

// New makes the logger (to standard error, with service and instance on every
// line), the registry with build and runtime metrics, and, if configured, the
// debug listener, which says "not ready" until SetReady(true).
func New(cfg Config, service, instance string) (*Telemetry, error) {
	log, err := newLogger(os.Stderr, cfg)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{
		Log:      log.With("service", service, "instance", instance),
		Registry: newRegistry(service),
	}
	if cfg.DebugListen != "" {
		t.debug, err = startDebug(cfg.DebugListen, t.Registry, t.Log)
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Logger returns Log, or a logger that discards.
func (t *Telemetry) Logger() *slog.Logger {
	if t == nil || t.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return t.Log
}

// Registerer returns where to register metrics, nil for nowhere.
func (t *Telemetry) Registerer() prometheus.Registerer {
	if t == nil || t.Registry == nil {
		return nil
	}
	return t.Registry
}

// SetReady decides what /readyz answers.
func (t *Telemetry) SetReady(ready bool) {
	if t != nil && t.debug != nil {
		t.debug.ready.Store(ready)
	}
}

// DebugAddr returns the address the debug listener got, "" without one.
func (t *Telemetry) DebugAddr() string {
	if t == nil || t.debug == nil {
		return ""
	}
	return t.debug.addr
}

// Close stops the debug listener; the logger and the registry stay usable.
func (t *Telemetry) Close(ctx context.Context) error {
	if t == nil || t.debug == nil {
		return nil
	}
	return t.debug.close(ctx)
}
