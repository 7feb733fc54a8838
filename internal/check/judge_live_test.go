package check

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// healedByNext sends Bea the n-th message; her connection shows nothing of it for as
// long as it stands, and the backlog of the next one does.
func (s *story) healedByNext(n int64, stands time.Duration) {
	s.invoke(ann, n, imclient.Private, bea)
	s.ack(ann, n, imclient.Private, bea, privateConv, n)
	s.wait(stands - 10*time.Millisecond)
	s.add(Event{Client: bea, Conn: int(n), Type: imclient.Info, Op: imclient.OpConnect})
	s.add(Event{Client: bea, Conn: int(n) + 1, Op: imclient.OpConnect})
	s.see(imclient.OpPush, bea, int(n)+1, ann, n, imclient.Private, bea, privateConv, n)
}

func TestJudge_SilentConnections(t *testing.T) {
	cases := []struct {
		name  string
		tell  func(s *story)
		wrong int
	}{
		{"that stood not for long", func(s *story) { s.healedByNext(1, 9900*time.Millisecond) }, 0},
		{"that stood for longer than a push may take", func(s *story) { s.healedByNext(1, 10100*time.Millisecond) }, 1},
		{"while something fails, and ten seconds more", func(s *story) {
			s.fault(1, Pause, "nsqd", 5*time.Second)
			s.healedByNext(1, 14900*time.Millisecond)
		}, 0},
		{"longer than that", func(s *story) {
			s.fault(1, Pause, "nsqd", 5*time.Second)
			s.healedByNext(1, 15100*time.Millisecond)
		}, 1},
		{"of a checker that was late", func(s *story) {
			s.healedByNext(1, 12*time.Second)
			s.add(Event{Op: OpLag, Seq: int64(5 * time.Second)})
		}, 0},
		{"that was told to read by other means", func(s *story) {
			s.add(Event{Client: bea, Conn: 1, Op: OpSyncNeeded, Conversation: privateConv})
			s.healedByNext(1, 12*time.Second)
		}, 0},
		{"many, for a moment in which nothing fails", func(s *story) {
			for n := range int64(120) {
				s.healedByNext(n+1, 300*time.Millisecond)
			}
		}, 1},
		{"many that ended before they had to show it", func(s *story) {
			for n := range int64(120) {
				s.healedByNext(n+1, 100*time.Millisecond)
			}
		}, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := opening()
			c.tell(s)
			r := Judge(s.events, Bounds{}).Result("I7")
			require.Equal(t, c.wrong, r.Red, r.Sample)
		})
	}
}
