package check

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// absence lets Bea leave for a while, after which Ann is told so, or never if that
// is negative; then she comes back.
func (s *story) absence(toldAfter, lasts time.Duration) {
	s.add(Event{Client: ann, Op: OpWatch, To: bea})
	s.add(Event{Client: ann, Op: OpPresence, From: bea, Code: imclient.CodeOnline})
	s.wait(time.Second)
	s.add(Event{Client: bea, Type: imclient.Invoke, Op: OpAway})
	s.add(Event{Client: bea, Op: OpAway})
	left := s.now
	if toldAfter >= 0 {
		s.now = left + toldAfter - 10*time.Millisecond
		s.add(Event{Client: ann, Op: OpPresence, From: bea, Code: imclient.CodeOffline})
	}
	s.now = left + lasts
	s.add(Event{Client: bea, Type: imclient.Info, Op: OpAway})
}

// absenceToldAgain is an absence told in time, and told of again, as code, a second
// before its end.
func (s *story) absenceToldAgain(code int) {
	s.absence(4*time.Second, 20*time.Second)
	back := s.events[len(s.events)-1]
	again := Event{T: back.T - time.Second, Client: ann, Type: imclient.OK, Op: OpPresence, From: bea, Code: code}
	s.events = append(s.events[:len(s.events)-1], again, back)
}

// A stall long ago does not excuse news that come late now.
func TestJudge_TransitionsAreToldInTime(t *testing.T) {
	for name, c := range map[string]struct {
		before, after time.Duration // stalls
		wrong         int
	}{
		"too late":                         {0, 0, 1},
		"too late, after a stall long ago": {time.Second, 0, 1},
		"too late, as the machine is":      {0, time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := opening()
			s.stall(c.before)
			s.wait(2 * time.Minute)
			s.add(Event{Client: bea, Op: OpOnline, Code: imclient.CodeOffline})
			s.wait(7500 * time.Millisecond)
			s.add(Event{Client: ann, Op: OpPresence, From: bea, Code: imclient.CodeOffline})
			s.stall(c.after)
			s.add(Event{Client: ann, Op: OpStatus, To: bea, Code: imclient.CodeOffline, Reason: transition})
			r := Judge(s.events, Bounds{}).Result("I10")
			require.Equal(t, c.wrong, r.Red, r.Sample)
		})
	}
}

func TestJudge_Absences(t *testing.T) {
	const never = -1
	cases := []struct {
		name  string
		tell  func(s *story)
		wrong int
	}{
		{"told in time", func(s *story) { s.absence(4*time.Second, 20*time.Second) }, 0},
		{"told too late", func(s *story) { s.absence(8*time.Second, 20*time.Second) }, 1},
		{"never told", func(s *story) { s.absence(never, 20*time.Second) }, 1},
		{"not away for long enough", func(s *story) { s.absence(never, 6*time.Second) }, 0},
		{"told again after the bus lost it", func(s *story) {
			s.fault(1, Drop, "nsqd", 5*time.Second)
			s.absence(9*time.Second, 20*time.Second)
		}, 0},
		{"not told again", func(s *story) {
			s.fault(1, Drop, "nsqd", 5*time.Second)
			s.absence(never, 20*time.Second)
		}, 1},
		{"the bus fails for so long that the first repeat is lost, too", func(s *story) {
			s.fault(1, Drop, "nsqd", 12*time.Second)
			s.absence(24*time.Second, 60*time.Second)
		}, 0},
		{"not told at last", func(s *story) {
			s.fault(1, Drop, "nsqd", 12*time.Second)
			s.absence(never, 60*time.Second)
		}, 1},
		{"what fails has nothing to do with it", func(s *story) {
			s.fault(1, Pause, "auth-1", 10*time.Second)
			s.fault(2, Delay, "callers>friend-2", 10*time.Second)
			s.absence(8*time.Second, 20*time.Second)
		}, 1},
		{"Redis forgets while something dies that has not", func(s *story) {
			s.fault(1, KillFlush, "auth-1", time.Second)
			s.absence(9*time.Second, 20*time.Second)
		}, 0},
		{"two things fail at once", func(s *story) {
			s.fault(1, Drop, "nsqd", 2*time.Second)
			s.fault(2, Kill, "logic-1", 5*time.Second)
			s.absence(never, 20*time.Second)
		}, 0},
		{"told in time, and once more", func(s *story) { s.absenceToldAgain(imclient.CodeOffline) }, 0},
		{"told, and then that he is there", func(s *story) { s.absenceToldAgain(imclient.CodeOnline) }, 1},
		{"a machine that is too slow", func(s *story) {
			s.add(Event{Op: OpLag, Seq: int64(time.Second)})
			s.absence(17*time.Second, 20*time.Second)
		}, 0},
		{"even for that", func(s *story) {
			s.add(Event{Op: OpLag, Seq: int64(time.Second)})
			s.absence(19*time.Second, 20*time.Second)
		}, 1},
		{"who was not connected all the time", func(s *story) {
			s.absence(never, 20*time.Second)
			s.events = append(s.events, Event{T: s.now - 16*time.Second, Client: ann, Conn: 1, Type: imclient.Info, Op: imclient.OpConnect})
		}, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := opening()
			c.tell(s)
			r := Judge(s.events, Bounds{}).Result("I10")
			require.Equal(t, c.wrong, r.Red, r.Sample)
		})
	}
}
