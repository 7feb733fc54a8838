package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

type section struct {
	DSN     Secret        `yaml:"dsn"`
	Timeout time.Duration `yaml:"timeout"`
	Nodes   []string      `yaml:"nodes"`
	Max     int           `yaml:"max_open"`
	Big     uint32        `yaml:"big"`
	Rate    float64       `yaml:"rate"`
	On      bool          `yaml:"on"`
	Plain   string
	Skipped string `yaml:"-"`
	hidden  string
}

type shared struct {
	Mode string `yaml:"mode"`
}

type sample struct {
	Database section `yaml:"database"`
	shared   `yaml:"-"`
	Shared   shared            `yaml:",inline"`
	Extra    map[string]string `yaml:"extra"`
	invalid  error
}

func (s *sample) Validate() error { return s.invalid }

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestLoad_FileThenEnvironment(t *testing.T) {
	path := write(t, `
mode: release
database:
  dsn: user:pass@tcp(127.0.0.1:1)/x
  timeout: 2s
  nodes: [a, b]
  max_open: 7
  rate: 0.5
  plain: ${HOME}
`)
	t.Setenv("IM_DATABASE_NODES", "c, d")
	t.Setenv("IM_DATABASE_TIMEOUT", "150ms")
	t.Setenv("IM_DATABASE_BIG", "4000000000")
	t.Setenv("IM_DATABASE_ON", "true")
	t.Setenv("IM_MODE", "debug")
	t.Setenv("IM_DATABASE_SKIPPED", "x")
	t.Setenv("IM_DATABASE_HIDDEN", "x")

	var c sample
	c.Database.Max = 1
	require.NoError(t, Load(path, &c))
	require.Equal(t, "user:pass@tcp(127.0.0.1:1)/x", c.Database.DSN.Reveal())
	require.Equal(t, 150*time.Millisecond, c.Database.Timeout)
	require.Equal(t, []string{"c", "d"}, c.Database.Nodes)
	require.Equal(t, 7, c.Database.Max)
	require.Equal(t, uint32(4000000000), c.Database.Big)
	require.InDelta(t, 0.5, c.Database.Rate, 0)
	require.True(t, c.Database.On)
	require.Equal(t, "${HOME}", c.Database.Plain, "values are not expanded")
	require.Equal(t, "debug", c.Shared.Mode)
	require.Empty(t, c.Database.Skipped)
	require.Empty(t, c.Database.hidden)
}

func TestLoad_DefaultsStayWithoutFileOrVariable(t *testing.T) {
	c := sample{Database: section{Max: 3, Nodes: []string{"x"}}}
	require.NoError(t, Load("", &c))
	require.Equal(t, 3, c.Database.Max)
	require.NoError(t, Load(write(t, "# nothing\n"), &c))
	require.Equal(t, []string{"x"}, c.Database.Nodes)

	t.Setenv("IM_DATABASE_NODES", "")
	require.NoError(t, Load("", &c))
	require.Empty(t, c.Database.Nodes)
}

func TestLoad_Refuses(t *testing.T) {
	for name, text := range map[string]string{
		"unknown section": "databse: {}\n",
		"unknown key":     "database: {max_opn: 1}\n",
		"wrong type":      "database: {max_open: many}\n",
		"two documents":   "mode: a\n---\nmode: b\n",
		"no duration":     "database: {timeout: soon}\n",
		"same key twice":  "mode: a\nmode: b\n",
	} {
		t.Run(name, func(t *testing.T) {
			require.Error(t, Load(write(t, text), &sample{}))
		})
	}
	for name, value := range map[string]string{
		"IM_DATABASE_MAX_OPEN": "many",
		"IM_DATABASE_TIMEOUT":  "5",
		"IM_DATABASE_BIG":      "-1",
		"IM_DATABASE_ON":       "perhaps",
		"IM_DATABASE_RATE":     "x",
		"IM_DATABASE_DSN":      "env:IM_SURELY_NOT_SET",
		"IM_EXTRA":             "a=b",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			require.ErrorContains(t, Load("", &sample{}), name)
		})
	}
	require.Error(t, Load(filepath.Join(t.TempDir(), "absent.yaml"), &sample{}))
	require.Error(t, Load("", sample{}))
	boom := errors.New("boom")
	require.ErrorIs(t, Load("", &sample{invalid: boom}), boom)
}

func TestSecret_References(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pw")
	require.NoError(t, os.WriteFile(file, []byte("from file\n"), 0o600))
	t.Setenv("PW_FOR_TEST", "from env")
	var c sample
	require.NoError(t, Load(write(t, "database: {dsn: 'file:"+file+"'}\n"), &c))
	require.Equal(t, "from file", c.Database.DSN.Reveal())
	require.NoError(t, Load(write(t, "database: {dsn: 'env:PW_FOR_TEST'}\n"), &c))
	require.Equal(t, "from env", c.Database.DSN.Reveal())
	require.Error(t, Load(write(t, "database: {dsn: 'file:"+file+".absent'}\n"), &c))

	require.NoError(t, os.WriteFile(file, make([]byte, maxSecretFile+1), 0o600))
	require.ErrorContains(t, Load(write(t, "database: {dsn: 'file:"+file+"'}\n"), &c), "larger")
}

func TestSecret_NeverPrints(t *testing.T) {
	const value = "hunter2"
	s := Secret(value)
	holder := struct{ S Secret }{s}
	asJSON, err := json.Marshal(holder)
	require.NoError(t, err)
	asYAML, err := yaml.Marshal(holder)
	require.NoError(t, err)
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s, "holder", holder)

	all := []string{string(asJSON), string(asYAML), log.String(), s.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		all = append(all, fmt.Sprintf(verb, s), fmt.Sprintf(verb, holder), fmt.Sprintf(verb, &holder))
	}
	for _, out := range all {
		require.NotContains(t, out, value)
		require.NotContains(t, strings.ToLower(out), "68756e74657232", "hex form")
	}
	require.Equal(t, value, s.Reveal())
}

// FuzzDecode holds the reader of configurations to returning an error instead
// of panicking.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("database: {dsn: x, timeout: 1s, nodes: [a]}\n"))
	f.Add([]byte("mode: a\n---\n"))
	f.Add([]byte("&a [*a]\n"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		var c sample
		_ = decode(data, &c)
	})
}
