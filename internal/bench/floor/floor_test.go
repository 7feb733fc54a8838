package floor

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"im-services/internal/bench/lean"
	"im-services/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, testkit.LeakOptions()...) }

func TestStore_StoresAndCleansUp(t *testing.T) {
	dsn := testkit.MySQL(t)
	settings, err := Durability(t.Context(), dsn)
	require.NoError(t, err)
	require.Equal(t, "1", settings["innodb_flush_log_at_trx_commit"])
	require.NotEmpty(t, settings["version"])
	for _, batch := range []int{1, 16} {
		r, err := Store(t.Context(), dsn, nil, batch, 2, 200*time.Millisecond)
		require.NoError(t, err)
		require.Positive(t, r.RowsPerSecond)
	}
}

func TestBus_EverythingComesThrough(t *testing.T) {
	nsqd := testkit.NSQ(t)
	for _, batch := range []int{1, 16} {
		r, err := Bus(t.Context(), nsqd.TCP, nil, batch, 200*time.Millisecond)
		require.NoError(t, err)
		require.Positive(t, r.PerSecond)
	}
}

func TestRelay_HandsOnAndAcknowledges(t *testing.T) {
	srv := httptest.NewServer(NewRelay())
	defer srv.Close()
	dial := func(user string) *lean.Conn {
		c, err := lean.Dial(t.Context(), srv.URL, user, "")
		require.NoError(t, err)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		t.Cleanup(func() { _ = c.Close() })
		// An answer: it is registered.
		require.NoError(t, c.Heartbeat())
		_, err = c.Next()
		require.NoError(t, err)
		return c
	}
	a, b := dial("1"), dial("2")
	a.Lock()
	err := a.SendLocked(&lean.Chat{ClientMsgID: 9, From: 1, To: 2, Kind: 1, Body: []byte("hello")})
	a.Unlock()
	require.NoError(t, err)
	var f lean.Frame
	p, err := a.Next()
	require.NoError(t, err)
	require.True(t, lean.Parse(p, &f))
	require.EqualValues(t, lean.CodeAck, f.Code)
	require.EqualValues(t, 9, f.ClientMsgID)
	p, err = b.Next()
	require.NoError(t, err)
	require.True(t, lean.Parse(p, &f))
	require.EqualValues(t, lean.CodeChat, f.Code)
	require.Equal(t, "hello", string(f.Text))

	_, err = lean.Dial(t.Context(), srv.URL, "nobody", "")
	require.Error(t, err)
	require.True(t, strings.Contains(err.Error(), "401"))
}
