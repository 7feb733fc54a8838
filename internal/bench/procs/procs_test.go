package procs

import (
	"os"
	"os/exec"
	"runtime"
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
	if _, err := os.Stat("/proc/stat"); err != nil {
		t.Skip("no /proc")
	}
	child := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
	require.NoError(t, child.Start())
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	list := []Process{{"busy-1", child.Process.Pid}, {"gone", 1 << 22}}
	before := Take(list)
	time.Sleep(400 * time.Millisecond)
	u := Take(list).Since(before, runtime.NumCPU())
	require.InDelta(t, 0.4, u.Seconds, 0.2)
	require.Greater(t, u.Servers["busy-1"], 0.05)
	require.NotContains(t, u.Servers, "gone")
	require.Equal(t, u.Servers["busy-1"], u.ByKind()["busy"])
	require.Less(t, u.Own, u.Servers["busy-1"])
	require.Positive(t, u.Busy)
	require.InDelta(t, u.Total(), u.Servers["busy-1"], 1e-9)
}

func TestRSS_SeesMemoryInUse(t *testing.T) {
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		t.Skip("no /proc")
	}
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
