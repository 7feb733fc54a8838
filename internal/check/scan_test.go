package check

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// scanned returns what is found in a log and what was cut off it.
func scanned(t *testing.T, log, cut string) []Event {
	t.Helper()
	path := filepath.Join(t.TempDir(), "logic-1.log")
	require.NoError(t, os.WriteFile(path, []byte(log), 0o600))
	if cut != "" {
		require.NoError(t, os.WriteFile(path+".1", []byte(cut), 0o600))
	}
	r := &run{log: newLog(imclient.NewHistory(io.Discard))}
	require.NoError(t, r.scanLog(path, append(forbiddenTexts, panicTexts...)))
	require.NoError(t, r.log.close())
	return r.log.take()
}

func TestScan_FindsEveryPanic(t *testing.T) {
	var text, json bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Error("handler panicked", "panic", "index out of range", "stack", "goroutine 1")
	slog.New(slog.NewJSONHandler(&json, nil)).Error("handler panicked", "panic", "index out of range")
	for name, line := range map[string]string{
		"recovered, logged as text": text.String(),
		"recovered, logged as JSON": json.String(),
		"that ended the process":    "panic: runtime error: index out of range [1] with length 1\n",
		"recovered by net/http":     "time=x level=ERROR msg=\"http: panic serving 127.0.0.1:1: index out of range\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			found := scanned(t, "time=x level=INFO msg=ready\n"+line, "")
			require.Len(t, found, 1)
			require.Equal(t, "the message of a panic", found[0].Reason)
			require.False(t, Judge(append(correct().events, found...), Bounds{}).Green())
		})
	}
}

func TestScan_LooksIntoWhatWasCutOff(t *testing.T) {
	found := scanned(t, "time=x level=INFO msg=ready\n", "time=x level=INFO msg=\""+canaryMark+"p:1:2\"\n")
	require.Len(t, found, 1)
	require.Equal(t, "a message", found[0].Reason)
	require.Equal(t, "logic-1.log.1", found[0].Text)
}

func TestScan_OrdinaryLinesAreNoneOfThese(t *testing.T) {
	require.Empty(t, scanned(t, "time=x level=WARN msg=\"call failed\" err=\"no panic\" panics=0\n", "time=x msg=\"ready\"\n"))
}
