package check

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

func TestLog_KeepsAndWritesInOrder(t *testing.T) {
	var file bytes.Buffer
	l := newLog(imclient.NewHistory(&file))
	const n = chunkSize + 10
	for i := range n {
		l.add(&Event{T: time.Duration(i + 1), Op: OpLag, Type: imclient.OK, Seq: int64(i)})
	}
	seen := 0
	for e := range l.all() {
		require.EqualValues(t, seen, e.Seq)
		seen++
	}
	require.Equal(t, n, seen)
	require.NoError(t, l.close())
	written, err := ReadHistory(&file)
	require.NoError(t, err)
	require.Equal(t, written, l.take())
}

func TestLog_EventsStayWhereTheyAre(t *testing.T) {
	l := newLog(imclient.NewHistory(io.Discard))
	l.add(&Event{})
	first := &l.chunks[0][0]
	for range 2 * chunkSize {
		l.add(&Event{})
	}
	require.Same(t, first, &l.chunks[0][0], "moved, while all clients wait")
	require.NoError(t, l.close())
}

// stuck is a disk that stands still until it is closed.
type stuck chan struct{}

func (s stuck) Write(b []byte) (int, error) {
	<-s
	return len(b), nil
}

func TestLog_NobodyWaitsForTheDisk(t *testing.T) {
	disk := make(stuck)
	l := newLog(imclient.NewHistory(disk))
	added := make(chan struct{})
	go func() {
		defer close(added)
		for range 10_000 { // more than any buffer on the way takes
			l.add(&Event{Op: OpLag, Type: imclient.OK})
		}
	}()
	select {
	case <-added:
	case <-time.After(10 * time.Second):
		t.Error("whoever adds an event waits for it to be written")
	}
	close(disk)
	<-added
	require.NoError(t, l.close())
}
