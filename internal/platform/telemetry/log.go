package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// secretKeys are attribute keys whose values never reach a log, whoever logs
// them: a second line of defence behind config.Secret.
var secretKeys = map[string]bool{
	"token": true, "access_token": true, "refresh_token": true, "ticket": true,
	"password": true, "secret": true, "authorization": true, "cookie": true, "dsn": true,
}

// newLogger makes the process's logger.
func newLogger(w io.Writer, cfg Config) (*slog.Logger, error) {
	var level slog.Level
	if cfg.LogLevel != "" {
		if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
			return nil, fmt.Errorf("telemetry: log_level: %w", err)
		}
	}
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: redact}
	switch cfg.LogFormat {
	case "", "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	default:
		return nil, fmt.Errorf("telemetry: log_format %q: want text or json", cfg.LogFormat)
	}
}

// redact hides values logged under a key that names a secret.
func redact(_ []string, a slog.Attr) slog.Attr {
	if secretKeys[strings.ToLower(a.Key)] {
		a.Value = slog.StringValue("[redacted]")
	}
	return a
}
