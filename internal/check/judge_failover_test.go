package check

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// changeOfRoles is a fault of that kind which begins after the first message and
// is over before the second: the new primary takes writes after two seconds, the
// new epoch is told after another half.
func (s *story) changeOfRoles(number int, kind string) {
	s.add(Event{Conn: number, Type: imclient.Invoke, Op: OpFault, Text: "mysql", Reason: kind})
	s.add(Event{Conn: number, Type: imclient.Invoke, Op: OpEpoch, Text: "first"})
	s.wait(2 * time.Second)
	s.add(Event{Conn: number, Op: OpPromoted, Text: "mysql-2"})
	s.wait(500 * time.Millisecond)
	s.add(Event{Conn: number, Op: OpEpoch, Text: "second"})
	s.add(Event{Conn: number, Type: imclient.Fail, Op: OpFenced, Text: "mysql"})
	s.add(Event{Conn: number, Op: OpFault, Text: "mysql", Reason: kind})
}

// earlyStall is a stall two minutes before everything else.
func (s *story) earlyStall(late time.Duration) {
	rest := s.events
	s.events = nil
	for i := range rest {
		rest[i].T += 2 * time.Minute
	}
	now := s.now + 2*time.Minute
	s.now = 0
	s.stall(late)
	s.events, s.now = append(s.events, rest...), now
}

func TestJudge_ChangesOfThePrimary(t *testing.T) {
	cases := []struct {
		name  string
		kind  string
		bend  func(t *testing.T, s *story)
		talks time.Duration // the second message is sent so long after it is over
		wrong int
	}{
		{"in time", FailOver, nil, 2 * time.Second, 0},
		{"planned, in time", SwitchOver, nil, 2 * time.Second, 0},
		{"cut off, in time", Fence, nil, 2 * time.Second, 0},
		{"nobody is promoted", FailOver, func(t *testing.T, s *story) {
			s.events = drop(s.events, find(t, s.events, 0, is(OpPromoted, 0)))
		}, 0, 1},
		{"the epoch stays", FailOver, func(t *testing.T, s *story) {
			s.events[find(t, s.events, 1, is(OpEpoch, 0))].Text = "first"
		}, 0, 1},
		{"nobody says that all is to be read anew", SwitchOver, func(t *testing.T, s *story) {
			e := &s.events[find(t, s.events, 1, is(OpEpoch, 0))]
			e.Type, e.Reason = imclient.Fail, "no full_resync"
		}, 0, 1},
		{"no answer about the epoch", Fence, func(t *testing.T, s *story) {
			s.events = drop(s.events, find(t, s.events, 1, is(OpEpoch, 0)))
		}, 0, 1},
		{"the epoch is told too late", FailOver, func(t *testing.T, s *story) {
			s.events[find(t, s.events, 0, is(OpPromoted, 0))].T -= 5 * time.Second
		}, 0, 1},
		{"the epoch is told too late, on a machine that stood still before", FailOver, func(t *testing.T, s *story) {
			s.events[find(t, s.events, 0, is(OpPromoted, 0))].T -= 5 * time.Second
			s.earlyStall(2 * time.Second)
		}, 0, 1},
		{"the old primary goes on", Fence, func(t *testing.T, s *story) {
			s.events[find(t, s.events, 0, is(OpFenced, 0))].Type = imclient.OK
		}, 0, 1},
		{"nothing is taken for too long", FailOver, nil, 5 * time.Second, 1},
		{"nothing is taken for too long in a planned switch", SwitchOver, nil, 9 * time.Second, 2},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := opening()
			s.wait(10 * time.Second)
			s.private(ann, 1, 1)
			s.changeOfRoles(1, c.kind)
			if c.bend != nil {
				c.bend(t, s)
			}
			s.wait(c.talks)
			s.private(ann, 2, 2)
			s.wait(10 * time.Second)
			s.add(Event{Op: OpPhase, Text: PhaseHeal})
			r := Judge(s.events, Bounds{}).Result("I17")
			require.Equal(t, c.wrong, r.Red, r.Sample)
			require.Positive(t, r.Checked)
		})
	}
}

func TestSchedule_APairIsFailedOverAndNothingElse(t *testing.T) {
	all := func(string, string) bool { return true }
	o := Options{Schedule: &Schedule{Faults: []fault{{Kind: Kill, Target: "mysql"}}}}
	require.NoError(t, o.forRoles(all))
	require.False(t, o.Replica, "not a pair")
	o.Schedule.Faults = append(o.Schedule.Faults, fault{Kind: FailOver, Target: "mysql"})
	require.Error(t, o.forRoles(all))
	o.Schedule.Faults = o.Schedule.Faults[1:]
	require.NoError(t, o.forRoles(all))
	require.True(t, o.Replica, "the schedule needs one")
	o.Base = "http://127.0.0.1:1"
	require.Error(t, o.forRoles(all))
}
