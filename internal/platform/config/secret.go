package config

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// hidden is what every printed form of a Secret shows.
const hidden = "[secret]"

// maxSecretFile bounds what is read from a "file:" secret.
const maxSecretFile = 64 << 10

// Secret is a string that does not print itself: no verb of fmt, no slog
// handler and no encoder shows its value. Only Reveal does.
//
// In YAML and in the environment it may be written as "file:/path", the
// content of a file without its trailing line break, or as "env:NAME", the
// value of a variable that must be set.
type Secret string

// Reveal returns the value. Keep it out of errors and logs.
func (s Secret) Reveal() string { return string(s) }

// String hides the value.
func (s Secret) String() string { return hidden }

// Format hides the value from every verb, %#v and %x included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalText hides the value from JSON, YAML and text encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue hides the value from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// UnmarshalText reads a literal value or a "file:" or "env:" reference.
func (s *Secret) UnmarshalText(text []byte) error {
	v := string(text)
	if path, ok := strings.CutPrefix(v, "file:"); ok {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("secret: %w", err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
		if err != nil {
			return fmt.Errorf("secret: %w", err)
		}
		if len(b) > maxSecretFile {
			return fmt.Errorf("secret: %s is larger than %d bytes", path, maxSecretFile)
		}
		*s = Secret(strings.TrimRight(string(b), "\r\n"))
		return nil
	}
	if name, ok := strings.CutPrefix(v, "env:"); ok {
		val, set := os.LookupEnv(name)
		if !set {
			return fmt.Errorf("secret: variable %s is not set", name)
		}
		*s = Secret(val)
		return nil
	}
	*s = Secret(v)
	return nil
}
