package check

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// eve reads nothing; the loud one writes to the group that both are in.
const eve, fay = int64(5), int64(6)

// beside is an episode with eve: what waits for her is full after two seconds,
// and she is closed after closed more, or is still open then.
func (s *story) beside(closed time.Duration, why string) {
	s.add(Event{Client: eve, Op: OpSlow, Text: silent})
	s.add(Event{Client: fay, Op: OpSlow, Text: loud})
	s.join(eve)
	s.join(fay)
	s.add(Event{Conn: 1, Type: imclient.Invoke, Op: OpBeside})
	s.add(Event{Client: eve, Conn: 1, Op: imclient.OpConnect})
	begin, big := s.now, strings.Repeat("x", 64<<10)
	for n := range int64(9) {
		e := Event{Client: fay, Conn: 1, ClientID: 100 + n, Op: imclient.OpSend, Channel: imclient.Group, To: groupConv}
		ack := e
		e.Type, e.Text = imclient.Invoke, big
		s.add(e)
		if n == 8 {
			s.now = begin + 2*time.Second - 10*time.Millisecond
		}
		ack.Conversation, ack.Seq, ack.ID = groupConv, 100+n, 5000+n
		s.add(ack)
	}
	s.now = begin + 2*time.Second + closed - 10*time.Millisecond
	s.add(Event{Client: eve, Conn: 1, Type: imclient.Info, Op: imclient.OpConnect, Reason: why})
	s.add(Event{Conn: 1, Op: OpBeside})
}

// stall is a moment in which the machine stood still for so long, on one that is
// fast enough.
func (s *story) stall(late time.Duration) {
	s.events = append(s.events, Event{T: s.now, Type: imclient.OK, Op: OpLag, Seq: int64(late)})
	for range 200 {
		s.events = append(s.events, Event{T: s.now, Type: imclient.OK, Op: OpLag})
	}
}

// many are private messages whose pushes take so long.
func (s *story) many(n int, first int64, took time.Duration) {
	for i := range int64(n) {
		s.invoke(ann, first+i, imclient.Private, bea)
		s.ack(ann, first+i, imclient.Private, bea, privateConv, first+i)
		s.wait(took - 10*time.Millisecond)
		s.see(imclient.OpPush, bea, 1, ann, first+i, imclient.Private, bea, privateConv, first+i)
	}
}

func TestJudge_SaysThatItDidNotCompare(t *testing.T) {
	s := opening()
	s.many(20, 1, 40*time.Millisecond)
	s.add(Event{Op: OpPhase, Text: PhaseHeal})
	require.Contains(t, Judge(s.events, Bounds{}).Result("I15").Name, "not compared: too few fault-free seconds")
}

func TestJudge_SlowReaders(t *testing.T) {
	cases := []struct {
		name  string
		tell  func(s *story)
		wrong int
	}{
		{"closed in time", func(s *story) { s.beside(4900*time.Millisecond, "reset") }, 0},
		{"closed too late", func(s *story) { s.beside(5100*time.Millisecond, "reset") }, 1},
		{"never closed", func(s *story) { s.beside(20*time.Second, ownEnd) }, 1},
		{"not waited for long enough", func(s *story) { s.beside(time.Second, ownEnd) }, 0},
		{"while something fails, and ten seconds more", func(s *story) {
			s.fault(1, Pause, "nsqd", 5*time.Second)
			s.beside(17*time.Second, "reset")
		}, 0},
		{"longer than that", func(s *story) {
			s.fault(1, Pause, "nsqd", 5*time.Second)
			s.beside(18500*time.Millisecond, "reset")
		}, 1},
		{"a machine that is too slow", func(s *story) {
			s.beside(15900*time.Millisecond, "reset")
			s.add(Event{Op: OpLag, Seq: int64(time.Second)})
		}, 0},
		{"even for that", func(s *story) {
			s.beside(16100*time.Millisecond, "reset")
			s.add(Event{Op: OpLag, Seq: int64(time.Second)})
		}, 1},
		{"a machine that stood still meanwhile", func(s *story) {
			s.beside(5900*time.Millisecond, "reset")
			s.stall(time.Second)
		}, 0},
		{"a machine that stood still at another time", func(s *story) {
			s.stall(time.Second)
			s.wait(2 * time.Minute)
			s.beside(5900*time.Millisecond, "reset")
		}, 1},
		{"who vanished is noticed", func(s *story) {
			s.add(Event{Client: eve, Conn: 1, Type: imclient.Invoke, Op: OpGone})
			s.wait(34 * time.Second)
			s.add(Event{Client: eve, Conn: 1, Op: OpGone})
		}, 0},
		{"who vanished is noticed too late", func(s *story) {
			s.add(Event{Client: eve, Conn: 1, Type: imclient.Invoke, Op: OpGone})
			s.wait(36 * time.Second)
			s.add(Event{Client: eve, Conn: 1, Op: OpGone})
		}, 1},
		{"who vanished is not noticed", func(s *story) {
			s.add(Event{Client: eve, Conn: 1, Type: imclient.Invoke, Op: OpGone})
			s.wait(36 * time.Second)
			s.add(Event{Client: eve, Conn: 1, Type: imclient.Fail, Op: OpGone})
		}, 1},
		{"others are as quick beside them", func(s *story) {
			s.many(250, 1, 40*time.Millisecond)
			s.add(Event{Conn: 1, Type: imclient.Invoke, Op: OpBeside})
			s.many(250, 251, 130*time.Millisecond)
			s.add(Event{Conn: 1, Op: OpBeside})
		}, 0},
		{"others are slower beside them", func(s *story) {
			s.many(250, 1, 40*time.Millisecond)
			s.add(Event{Conn: 1, Type: imclient.Invoke, Op: OpBeside})
			s.many(250, 251, 140*time.Millisecond)
			s.add(Event{Conn: 1, Op: OpBeside})
		}, 1},
		{"a few say nothing", func(s *story) {
			s.many(250, 1, 40*time.Millisecond)
			s.add(Event{Conn: 1, Type: imclient.Invoke, Op: OpBeside})
			s.many(150, 251, 190*time.Millisecond)
			s.add(Event{Conn: 1, Op: OpBeside})
		}, 0},
		{"nor do many of a few seconds", func(s *story) {
			s.many(250, 1, 40*time.Millisecond)
			s.add(Event{Conn: 1, Type: imclient.Invoke, Op: OpBeside})
			for n := int64(251); n <= 500; n++ {
				s.invoke(ann, n, imclient.Private, bea)
				s.ack(ann, n, imclient.Private, bea, privateConv, n)
			}
			for n := int64(251); n <= 500; n++ {
				s.see(imclient.OpPush, bea, 1, ann, n, imclient.Private, bea, privateConv, n)
			}
			s.add(Event{Conn: 1, Op: OpBeside})
		}, 0},
		{"nor does a machine that is too slow", func(s *story) {
			s.add(Event{Op: OpLag, Seq: int64(time.Second)})
			s.many(250, 1, 40*time.Millisecond)
			s.add(Event{Conn: 1, Type: imclient.Invoke, Op: OpBeside})
			s.many(250, 251, 190*time.Millisecond)
			s.add(Event{Conn: 1, Op: OpBeside})
		}, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := opening()
			c.tell(s)
			s.add(Event{Op: OpPhase, Text: PhaseHeal})
			r := Judge(s.events, Bounds{}).Result("I15")
			require.Equal(t, c.wrong, r.Red, r.Sample)
		})
	}
}
