package telemetry

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(b)
}

func TestDebugListener(t *testing.T) {
	tel, err := New(Config{DebugListen: "127.0.0.1:0", LogLevel: "error"}, "logic", "logic-1")
	require.NoError(t, err)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	base := "http://" + tel.DebugAddr()

	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "im_test_total", Help: "x"})
	tel.Registry.MustRegister(c)
	c.Inc()

	code, _ := fetch(t, base+"/healthz")
	require.Equal(t, http.StatusOK, code)
	code, _ = fetch(t, base+"/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Error(t, Probe(t.Context(), tel.DebugAddr()))

	tel.SetReady(true)
	code, _ = fetch(t, base+"/readyz")
	require.Equal(t, http.StatusOK, code)
	require.NoError(t, Probe(t.Context(), tel.DebugAddr()))
	tel.SetReady(false)
	require.Error(t, Probe(t.Context(), tel.DebugAddr()))

	_, body := fetch(t, base+"/metrics")
	require.Contains(t, body, "im_test_total 1")
	require.Contains(t, body, `im_build_info{`)
	require.Contains(t, body, `service="logic"`)
	require.Contains(t, body, "go_goroutines")
	code, _ = fetch(t, base+"/debug/pprof/cmdline")
	require.Equal(t, http.StatusOK, code)

	require.NoError(t, tel.Close(context.Background()))
	require.Error(t, Probe(t.Context(), tel.DebugAddr()))
}

func TestDebugListener_NoProfilesBeyondTheMachine(t *testing.T) {
	tel, err := New(Config{DebugListen: "0.0.0.0:0"}, "logic", "1")
	require.NoError(t, err)
	defer func() { require.NoError(t, tel.Close(context.Background())) }()
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	_, port, _ := strings.Cut(tel.DebugAddr()[strings.LastIndex(tel.DebugAddr(), ":"):], ":")
	code, _ := fetch(t, "http://127.0.0.1:"+port+"/debug/pprof/heap")
	require.Equal(t, http.StatusNotFound, code)
	tel.SetReady(true)
	require.NoError(t, Probe(t.Context(), "0.0.0.0:"+port), "a wildcard address is probed on loopback")
}

func TestNew_Refuses(t *testing.T) {
	_, err := New(Config{LogLevel: "loud"}, "s", "1")
	require.Error(t, err)
	_, err = New(Config{LogFormat: "xml"}, "s", "1")
	require.Error(t, err)
	_, err = New(Config{DebugListen: "256.0.0.1:1"}, "s", "1")
	require.Error(t, err)
}

func TestLogger_HidesSecretsWhateverTheKeyCase(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out strings.Builder
		log, err := newLogger(&out, Config{LogFormat: format, LogLevel: "debug"})
		require.NoError(t, err)
		log.Debug("login", "token", "hunter2", "Authorization", "hunter2", slog.Group("http", "cookie", "hunter2"), "user", 7)
		require.NotContains(t, out.String(), "hunter2")
		require.Contains(t, out.String(), "login")
	}
}

func TestNilTelemetry(t *testing.T) {
	var tel *Telemetry
	tel.Logger().Info("nowhere")
	require.Nil(t, tel.Registerer())
	tel.SetReady(true)
	require.Empty(t, tel.DebugAddr())
	require.NoError(t, tel.Close(context.Background()))
}
