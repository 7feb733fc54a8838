package procs

import (
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParsePids(t *testing.T) {
	got, err := ParsePids(" gateway-1=12, mysql=3 ,")
	require.NoError(t, err)
	require.Equal(t, []Process{{"gateway-1", 12}, {"mysql", 3}}, got)
	for _, bad := range []string{"x", "x=", "=3", "x=-1", "x=y"} {
		_, err := ParsePids(bad)
		require.Error(t, err, bad)
	}
}

func TestKind(t *testing.T) {
	for name, kind := range map[string]string{"gateway-1": "gateway", "mysql": "mysql", "a-b": "a-b"} {
		require.Equal(t, kind, Process{Name: name}.Kind())
	}
}

func TestSince_TellsTheServersFromTheGenerator(t *testing.T) {
	child := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
	require.NoError(t, child.Start())
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	list := []Process{{"busy-1", child.Process.Pid}, {"gone", 1 << 22}}
	before := Take(list)
	began := time.Now()
	time.Sleep(400 * time.Millisecond)
	var u Use
	var took time.Duration
	require.Eventually(t, func() bool { // a busy machine gives it less
		u, took = Take(list).Since(before, runtime.NumCPU()), time.Since(began)
		return u.Servers["busy-1"] > max(0.05, u.Own)
	}, 20*time.Second, 50*time.Millisecond)
	require.InDelta(t, took.Seconds(), u.Seconds, 0.3)
	require.NotContains(t, u.Servers, "gone")
	require.Equal(t, u.Servers["busy-1"], u.ByKind()["busy"])
	require.Positive(t, u.Busy)
	require.InDelta(t, u.Total(), u.Servers["busy-1"], 1e-9)
}

func TestRSS_SeesMemoryInUse(t *testing.T) {
	debug.FreeOSMemory() // or the block takes the place of garbage
	before, err := RSS(os.Getpid())
	require.NoError(t, err)
	block := make([]byte, 64<<20)
	for i := 0; i < len(block); i += 4096 {
		block[i] = 1
	}
	after, err := RSS(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, after-before, int64(32<<20))
	runtime.KeepAlive(block)
	_, err = RSS(1 << 22)
	require.Error(t, err)
}
