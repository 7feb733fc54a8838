package check

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// gil is the crowd.
const gil = int64(7)

// surge is an overload: 100 messages in each second of the peak, then offered in
// one second, of which so many are acked in each until over has passed too, and
// the others are refused.
func (s *story) surge(offered, acked, refused int, over time.Duration) {
	s.add(Event{Client: gil, Op: OpCrowd})
	id := int64(0)
	begin := s.now
	say := func(at time.Duration, e Event) {
		id++
		e.Client, e.ClientID, e.Conn, e.Op = gil, id, 1, imclient.OpSend
		ask := e
		ask.Type, ask.T = imclient.Invoke, at
		ask.Code, ask.Reason = 0, ""
		e.T = at
		s.events = append(s.events, ask, e)
	}
	s.add(Event{Type: imclient.Invoke, Op: OpStage, Text: stagePeak})
	for n := range 300 {
		say(begin+time.Duration(n)*10*time.Millisecond, Event{Type: imclient.OK})
	}
	s.now = begin + 3*time.Second
	s.add(Event{Op: OpStage, Text: stagePeak})
	s.add(Event{Type: imclient.Invoke, Op: OpStage, Text: stageSurge})
	from := s.now
	for t := time.Duration(0); t < time.Second+over; t += time.Second / time.Duration(acked) {
		say(from+t, Event{Type: imclient.OK})
	}
	for range refused {
		say(from+time.Second/2, Event{Type: imclient.Fail, Code: 500, Reason: "overloaded"})
	}
	s.now = from + time.Second - 10*time.Millisecond
	s.add(Event{Op: OpStage, Text: stageSurge, Seq: int64(offered)})
	s.add(Event{Type: imclient.Invoke, Op: OpStage, Text: stageRest})
	s.now = max(s.now, from+time.Second+over)
	say(s.now, Event{Type: imclient.OK})
	s.add(Event{Op: OpStage, Text: stageRest})
}

func TestJudge_Overload(t *testing.T) {
	cases := []struct {
		name  string
		tell  func(s *story)
		wrong int
	}{
		{"as much as before is taken", func(s *story) { s.surge(300, 85, 200, time.Second) }, 0},
		{"much less is taken", func(s *story) { s.surge(300, 75, 200, time.Second) }, 1},
		{"less is taken, for what the checker took", func(s *story) {
			s.surge(300, 75, 200, time.Second)
			for i := range s.events {
				if e := &s.events[i]; e.Op == OpStage {
					e.Code = 2
					if e.Text != stagePeak { // a fifth of two processors
						e.ID = int64(e.T * 2 / 5)
					}
				}
			}
		}, 0},
		{"that was no overload", func(s *story) { s.surge(190, 75, 100, time.Second) }, 0},
		{"over too late", func(s *story) { s.surge(300, 85, 200, 11*time.Second) }, 1},
		{"over in time", func(s *story) { s.surge(300, 85, 200, 9*time.Second) }, 0},
		{"over too late, and the machine stood still meanwhile", func(s *story) {
			s.surge(300, 85, 200, 10500*time.Millisecond)
			s.stall(time.Second)
		}, 0},
		{"over too late, and the machine stood still before", func(s *story) {
			s.stall(time.Second)
			s.wait(2 * time.Minute)
			s.surge(300, 85, 200, 10500*time.Millisecond)
		}, 1},
		{"a message without an end", func(s *story) {
			s.surge(300, 85, 200, time.Second)
			s.add(Event{Client: gil, Conn: 1, ClientID: 9999, Type: imclient.Invoke, Op: imclient.OpSend})
		}, 1},
		{"given up as unknown", func(s *story) {
			s.surge(300, 85, 200, time.Second)
			s.add(Event{Client: gil, Conn: 1, ClientID: 9999, Type: imclient.Invoke, Op: imclient.OpSend})
			s.add(Event{Client: gil, Conn: 1, ClientID: 9999, Type: imclient.Info, Op: imclient.OpSend})
		}, 0},
		{"noted after its answer", func(s *story) {
			s.surge(300, 85, 200, time.Second)
			s.add(Event{Client: gil, Conn: 1, ClientID: 9999, Type: imclient.Fail, Op: imclient.OpSend, Code: 500, Reason: "overloaded"})
			s.add(Event{Client: gil, Conn: 1, ClientID: 9999, Type: imclient.Invoke, Op: imclient.OpSend})
		}, 0},
		{"refused without a word", func(s *story) {
			s.surge(300, 85, 200, time.Second)
			s.add(Event{Client: gil, Conn: 1, ClientID: 9999, Type: imclient.Invoke, Op: imclient.OpSend})
			s.add(Event{Client: gil, Conn: 1, ClientID: 9999, Type: imclient.Fail, Op: imclient.OpSend})
		}, 1},
		{"a checker without time to spare measures itself", func(s *story) {
			s.surge(300, 75, 200, 11*time.Second)
			for n := range time.Duration(3) {
				s.events = append(s.events, Event{T: 2*time.Second + n*time.Second, Type: imclient.OK, Op: OpLag, Seq: int64(time.Second)})
			}
		}, 0},
		{"others do not count", func(s *story) {
			s.surge(300, 75, 200, time.Second)
			for n := range int64(50) {
				s.events = append(s.events, Event{T: s.now - 500*time.Millisecond, Client: ann, Conn: 1, ClientID: n, Type: imclient.OK, Op: imclient.OpSend})
			}
		}, 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := &story{}
			c.tell(s)
			r := Judge(s.events, Bounds{}).Result("I16")
			require.Equal(t, c.wrong, r.Red, "%s %v", r.Name, r.Sample)
			require.Empty(t, r.Skipped)
		})
	}
	require.NotEmpty(t, Judge(opening().events, Bounds{}).Result("I16").Skipped)
}
