package check

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// story builds a history by hand: Ann (1) and Bea (2) are friends, Cyd (3) and
// they are in group 100. Every line is a moment.
type story struct {
	now    time.Duration
	events []Event
}

const (
	ann, bea, cyd = int64(1), int64(2), int64(3)
	privateConv   = int64(50)
	groupConv     = int64(100)
	storySeed     = 9
)

func (s *story) add(e Event) {
	s.now += 10 * time.Millisecond
	e.T = s.now
	if e.Type == "" {
		e.Type = imclient.OK
	}
	s.events = append(s.events, e)
}

// wait lets time pass.
func (s *story) wait(d time.Duration) { s.now += d }

func text(from, cid int64, channel int, to int64) string {
	return canary(storySeed, keyOf(channel, from, to), from, cid, 1)
}

func (s *story) invoke(from, cid int64, channel int, to int64) {
	s.add(Event{Client: from, Conn: 1, Type: imclient.Invoke, Op: imclient.OpSend, ClientID: cid, Channel: channel, To: to, Text: text(from, cid, channel, to)})
}

func (s *story) ack(from, cid int64, channel int, to, conv, seq int64) {
	s.add(Event{Client: from, Conn: 1, Op: imclient.OpSend, ClientID: cid, Channel: channel, To: to, ID: conv*1000 + seq, Conversation: conv, Seq: seq})
}

func (s *story) see(op string, user int64, conn int, from, cid int64, channel int, to, conv, seq int64) {
	s.add(Event{
		Client: user, Conn: conn, Op: op, ClientID: cid, Channel: channel, To: to, From: from, Text: text(from, cid, channel, to),
		ID: conv*1000 + seq, Conversation: conv, Seq: seq,
	})
}

// private is one private message from its sending to its push.
func (s *story) private(from, cid, seq int64) {
	to := ann + bea - from
	s.invoke(from, cid, imclient.Private, to)
	s.ack(from, cid, imclient.Private, to, privateConv, seq)
	s.see(imclient.OpPush, to, 1, from, cid, imclient.Private, to, privateConv, seq)
}

func (s *story) grouped(from, cid, seq int64) {
	s.invoke(from, cid, imclient.Group, groupConv)
	s.ack(from, cid, imclient.Group, groupConv, groupConv, seq)
	for _, user := range []int64{ann, bea, cyd} {
		s.see(imclient.OpPush, user, 1, from, cid, imclient.Group, groupConv, groupConv, seq)
	}
}

func (s *story) join(user int64) {
	s.add(Event{Client: ann, Type: imclient.Invoke, Op: OpJoin, To: user, Conversation: groupConv})
	s.add(Event{Client: ann, Op: OpJoin, To: user, Conversation: groupConv})
}

func (s *story) leave(user int64) {
	s.add(Event{Client: ann, Type: imclient.Invoke, Op: OpLeave, To: user, Conversation: groupConv})
	s.add(Event{Client: ann, Op: OpLeave, To: user, Conversation: groupConv})
}

func (s *story) friend() {
	s.add(Event{Client: ann, Type: imclient.Invoke, Op: OpFriend, To: bea})
	s.add(Event{Client: ann, Op: OpFriend, To: bea})
}

// parting begins the end of a friendship: what is sent may be refused from now on.
func (s *story) parting() { s.add(Event{Client: ann, Type: imclient.Invoke, Op: OpUnfriend, To: bea}) }

func (s *story) unfriend() {
	s.parting()
	s.add(Event{Client: ann, Op: OpUnfriend, To: bea})
}

// forbiddenTo has a message that is refused for want of permission; before happens
// before it is sent, meanwhile before it is answered, and nothing is stored.
func forbiddenTo(from int64, channel int, to int64, before, meanwhile func(*story)) *story {
	s := opening()
	before(s)
	s.invoke(from, 1, channel, to)
	meanwhile(s)
	s.add(Event{Client: from, Conn: 1, Type: imclient.Fail, Op: imclient.OpSend, ClientID: 1, Channel: channel, To: to, Code: imclient.CodeNotAllowed})
	s.ending(nil)
	return s
}

// opening connects everybody and makes the relations.
func opening() *story {
	s := &story{}
	s.friend()
	for _, user := range []int64{ann, bea, cyd} {
		s.join(user)
		s.add(Event{Client: user, Conn: 1, Op: imclient.OpConnect})
	}
	s.add(Event{Op: OpPhase, Text: PhaseWarm})
	s.add(Event{Op: OpSample, Text: "logic-1", ID: 50 << 20, Seq: 100, Code: 50})
	return s
}

// refusedElsewhere has a message that is refused on another connection, and stored
// when some time has passed, on a machine whose timers are that late.
func refusedElsewhere(lag, later time.Duration) *story {
	s := opening()
	s.private(bea, 1, 1)
	s.invoke(ann, 1, imclient.Private, bea)
	s.parting()
	s.add(Event{Client: ann, Conn: 1, Type: imclient.Info, Op: imclient.OpConnect})
	s.add(Event{Client: ann, Conn: 2, Op: imclient.OpConnect})
	s.add(Event{Client: ann, Conn: 2, Type: imclient.Invoke, Op: imclient.OpResend, ClientID: 1})
	s.add(Event{Client: ann, Conn: 2, Type: imclient.Fail, Op: imclient.OpSend, ClientID: 1, Code: 1003})
	s.add(Event{Op: OpLag, Seq: int64(lag)})
	s.wait(later)
	s.invoke(bea, 2, imclient.Private, ann)
	s.ack(bea, 2, imclient.Private, ann, privateConv, 2)
	s.see(imclient.OpPush, ann, 2, bea, 2, imclient.Private, ann, privateConv, 2)
	s.see(imclient.OpPush, bea, 1, ann, 1, imclient.Private, bea, privateConv, 3)
	s.ending([]sent{privates(bea, 1, 1), privates(bea, 2, 2), privates(ann, 1, 3)})
	return s
}

// sent is a message of a story, as it is stored.
type sent struct {
	from, cid int64
	channel   int
	to        int64
	conv, seq int64
}

// ending quiesces, reads and audits what stored says.
func (s *story) ending(stored []sent) {
	s.wait(20 * time.Second)
	s.add(Event{Op: OpPhase, Text: PhaseQuiet})
	s.add(Event{Op: OpSample, Text: "logic-1", ID: 50 << 20, Seq: 101, Code: 50})
	s.wait(20 * time.Second)
	s.add(Event{Op: OpPhase, Text: PhaseRead})
	for _, user := range []int64{ann, bea, cyd} {
		s.add(Event{Client: user, Conn: sessionFinal, Type: imclient.Invoke, Op: OpSynced})
		rows := map[int64]int64{}
		for _, op := range []string{imclient.OpSync, OpRead} {
			for _, m := range stored {
				if m.channel == imclient.Group || user != cyd {
					s.see(op, user, sessionFinal, m.from, m.cid, m.channel, m.to, m.conv, m.seq)
					if op == OpRead {
						rows[m.conv]++
					}
				}
			}
			if op == imclient.OpSync {
				s.add(Event{Client: user, Conn: sessionFinal, Op: OpSynced})
			}
		}
		for _, conv := range sortedKeys(rows) {
			s.add(Event{Client: user, Op: OpHistory, Conversation: conv, Seq: rows[conv], ID: rows[conv]})
		}
		s.add(Event{Client: user, Op: OpReadDone})
		s.add(Event{Client: user, Op: OpOnline, Code: imclient.CodeOnline})
	}
	s.add(Event{Client: ann, Op: OpStatus, To: bea, Code: imclient.CodeOnline})
	last := map[int64]int64{}
	for _, m := range stored {
		s.see(OpRow, 0, 0, m.from, m.cid, m.channel, m.to, m.conv, m.seq)
		last[m.conv] = max(last[m.conv], m.seq)
	}
	for conv, seq := range last {
		s.add(Event{Op: OpConv, Conversation: conv, Seq: seq})
	}
	s.add(Event{Op: OpOutbox})
	s.add(Event{Op: OpOrphan, Text: "messages"})
	s.add(Event{Op: OpPhase, Text: PhaseEnd})
}

func privates(from, cid, seq int64) sent {
	return sent{from, cid, imclient.Private, ann + bea - from, privateConv, seq}
}

func groups(from, cid, seq int64) sent {
	return sent{from, cid, imclient.Group, groupConv, groupConv, seq}
}

// correct is a history without fault.
func correct() *story {
	s := opening()
	s.changeOfRoles(1, SwitchOver)
	s.private(ann, 1, 1)
	s.wait(20 * time.Second) // what follows has no fault for an excuse
	s.private(bea, 1, 2)
	s.private(ann, 2, 3)
	s.grouped(cyd, 1, 1)
	s.grouped(ann, 3, 2)
	s.add(Event{Client: ann, Type: imclient.Invoke, Op: OpAgain, ClientID: 1, Channel: imclient.Private, To: bea, Text: text(ann, 1, imclient.Private, bea)})
	s.add(Event{Client: ann, Op: OpAgain, ClientID: 1, Channel: imclient.Private, To: bea, ID: privateConv*1000 + 1, Conversation: privateConv, Seq: 1})
	s.add(Event{Client: ann, Type: imclient.Fail, Op: OpConflict, ClientID: 1, Channel: imclient.Private, To: bea, Code: 1000})
	s.add(Event{Client: ann, Op: OpUpload, ClientID: 1, Text: "/files/a/x.bin", Reason: "its sum"})
	s.add(Event{Client: ann, Type: imclient.Fail, Op: OpUpload, ClientID: 2, Code: 503})
	s.endLogin(dan, 300*time.Millisecond, 1500*time.Millisecond)
	s.add(Event{Client: eve, Conn: 1, Type: imclient.Invoke, Op: OpGone})
	s.wait(time.Second)
	s.add(Event{Client: eve, Conn: 1, Op: OpGone})
	for _, name := range []string{stagePeak, stageSurge, stageRest} {
		s.add(Event{Type: imclient.Invoke, Op: OpStage, Text: name})
		s.add(Event{Op: OpStage, Text: name})
	}
	s.add(Event{Client: gil, Op: OpCrowd})
	s.add(Event{Client: gil, Type: imclient.Invoke, Op: imclient.OpSend, ClientID: 1, Channel: imclient.Private, To: dan})
	s.add(Event{Client: gil, Type: imclient.Fail, Op: imclient.OpSend, ClientID: 1, Channel: imclient.Private, To: dan, Code: 500, Reason: "overloaded"})
	s.ending([]sent{privates(ann, 1, 1), privates(bea, 1, 2), privates(ann, 2, 3), groups(cyd, 1, 1), groups(ann, 3, 2)})
	s.add(Event{Client: ann, Op: OpFile, ClientID: 1, Text: "/files/a/x.bin", Reason: "its sum"})
	return s
}

func reds(v *Verdict) []string {
	var out []string
	for _, r := range v.Results {
		if r.Red > 0 {
			out = append(out, r.ID)
		}
	}
	return out
}

func explain(v *Verdict) string {
	out := ""
	for _, r := range v.Results {
		out += fmt.Sprintln(r.ID, r.Red, r.Sample, r.Skipped)
	}
	return out
}

func TestJudge_CorrectHistoryIsGreen(t *testing.T) {
	v := Judge(correct().events, Bounds{})
	require.True(t, v.Green(), explain(v))
	require.Len(t, v.Results, 17)
	for i, r := range v.Results {
		require.Equal(t, fmt.Sprintf("I%d", i+1), r.ID)
		require.Empty(t, r.Skipped, r.ID)
		require.Positive(t, r.Checked, r.ID)
	}
	require.Equal(t, 5, v.Figures.Acked)
}

// find returns the index of the n-th event (from 0) that f accepts.
func find(t *testing.T, events []Event, n int, f func(e *Event) bool) int {
	t.Helper()
	for i := range events {
		if f(&events[i]) {
			if n == 0 {
				return i
			}
			n--
		}
	}
	t.Fatal("the story has no such event")
	return 0
}

func is(op string, client int64) func(*Event) bool {
	return func(e *Event) bool { return e.Op == op && e.Client == client }
}

// forgetHistory leaves of what user reads of a conversation that it is empty.
func forgetHistory(events []Event, user, conv int64) []Event {
	var out []Event
	for _, e := range events {
		mine := e.Client == user && e.Conversation == conv
		if mine && e.Op == OpHistory {
			e.Seq, e.ID = 0, 0
		}
		if !(mine && e.Op == OpRead) {
			out = append(out, e)
		}
	}
	return out
}

const storedKey = "0123456789abcdef0123456789abcdef"

// partOf leaves a part of a file that was last written at some time.
func partOf(at time.Duration, before ...func(*story)) *story {
	s := opening()
	for _, f := range before {
		f(s)
	}
	s.wait(30 * time.Second)
	s.add(Event{Client: ann, Type: imclient.Fail, Op: OpUpload, ClientID: 1, Code: 503})
	s.ending(nil)
	s.add(Event{Type: imclient.Fail, Op: OpFile, Text: storedKey + ".18a.tmp", Seq: int64(at), Reason: "7 bytes of 9"})
	return s
}

func drop(events []Event, i int) []Event { return append(events[:i:i], events[i+1:]...) }

// Every invariant goes red on a history that breaks it, and the one that is
// meant to.
func TestJudge_EachViolationIsFound(t *testing.T) {
	cases := []struct {
		name string
		want string
		bend func(t *testing.T, events []Event) []Event
	}{
		{"an acknowledged message is not stored", "I1", func(t *testing.T, ev []Event) []Event {
			return drop(ev, find(t, ev, 2, is(OpRow, 0)))
		}},
		{"a reader misses a message", "I1", func(t *testing.T, ev []Event) []Event {
			return drop(ev, find(t, ev, 2, is(OpRead, bea)))
		}},
		{"who has no history of it misses it in the final sync", "I1", func(t *testing.T, ev []Event) []Event {
			var out []Event
			for _, e := range ev {
				if !(e.Client == cyd && (e.Op == OpRead || e.Op == OpHistory || e.Op == imclient.OpSync && e.Seq == 2)) {
					out = append(out, e)
				}
			}
			return out
		}},
		{"a history that is empty", "I1", func(_ *testing.T, ev []Event) []Event {
			return forgetHistory(ev, bea, privateConv)
		}},
		{"stored text is another", "I1", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 0, is(OpRow, 0))].Text += "!"
			return ev
		}},
		{"somebody could not read in the end", "I1", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 0, is(OpReadDone, bea))].Type = imclient.Fail
			return ev
		}},
		{"a refused message is stored", "I1", func(t *testing.T, ev []Event) []Event {
			i := find(t, ev, 1, is(imclient.OpSend, ann))
			ev[i].Type, ev[i].Code = imclient.Fail, 1003
			return ev
		}},
		{"refused on another connection, then stored from the first", "I1", func(t *testing.T, ev []Event) []Event {
			return refusedElsewhere(0, 0).events
		}},
		{"refused on another connection, then stored from the first, long after, on a slow machine", "I1", func(t *testing.T, ev []Event) []Event {
			return refusedElsewhere(100*time.Millisecond, 3*time.Second).events
		}},
		{"a message nobody sent is stored", "I1", func(t *testing.T, ev []Event) []Event {
			e := ev[find(t, ev, 0, is(OpRow, 0))]
			e.ClientID, e.Conversation, e.Seq, e.ID = 77, 60, 1, 60001
			return append(ev, e)
		}},
		{"a repeat got another seq", "I2", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 1, is(OpAgain, ann))].Seq = 9
			return ev
		}},
		{"a repeat was forbidden", "I2", func(t *testing.T, ev []Event) []Event {
			e := &ev[find(t, ev, 1, is(OpAgain, ann))]
			e.Type, e.Code, e.Reason = imclient.Fail, imclient.CodeNotAllowed, "not_friends"
			return ev
		}},
		{"a repeat was taken for other content", "I2", func(t *testing.T, ev []Event) []Event {
			e := &ev[find(t, ev, 1, is(OpAgain, ann))]
			e.Type, e.Code, e.Reason = imclient.Fail, 1000, reusedID
			return ev
		}},
		{"a message was pushed under two seqs", "I2", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 0, is(imclient.OpPush, bea))].Seq = 9
			return ev
		}},
		{"one id names two messages", "I2", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 1, is(OpRow, 0))].ID = privateConv*1000 + 1
			return ev
		}},
		{"an id with another text was accepted", "I2", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 0, is(OpConflict, ann))].Type = imclient.OK
			return ev
		}},
		{"a gap in the database", "I3", func(t *testing.T, ev []Event) []Event {
			for i := range ev {
				if e := &ev[i]; e.Conversation == privateConv && e.Seq == 3 {
					e.Seq = 4
				}
			}
			return ev
		}},
		{"a reader's order is another", "I3", func(t *testing.T, ev []Event) []Event {
			i, j := find(t, ev, 0, is(OpRead, bea)), find(t, ev, 1, is(OpRead, bea))
			ev[i], ev[j] = ev[j], ev[i]
			return ev
		}},
		{"a history without its end, of which nobody has heard", "I3", func(t *testing.T, ev []Event) []Event {
			s := opening()
			s.private(bea, 1, 1)
			s.invoke(ann, 1, imclient.Private, bea)
			s.add(Event{Client: ann, Type: imclient.Info, Op: imclient.OpSend, ClientID: 1})
			s.ending([]sent{privates(bea, 1, 1), privates(ann, 1, 2)})
			e := &s.events[find(t, s.events, 0, is(OpHistory, bea))]
			e.Seq, e.ID = 1, 1
			return drop(s.events, find(t, s.events, 1, is(OpRead, bea)))
		}},
		{"a history that is longer than what is read of it", "I3", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 0, is(OpHistory, bea))].ID++
			return ev
		}},
		{"sent after an acknowledgement, stored before it", "I3", func(t *testing.T, ev []Event) []Event {
			for i := range ev { // swap seqs 1 and 2 everywhere
				if e := &ev[i]; e.Conversation == groupConv && e.Seq != 0 && e.Op != OpConv {
					e.Seq = 3 - e.Seq
					e.ID = groupConv*1000 + e.Seq
				}
			}
			return ev
		}},
		{"pipelined sends changed places", "I4", func(t *testing.T, ev []Event) []Event {
			i, j := find(t, ev, 1, is(imclient.OpSend, ann)), find(t, ev, 3, is(imclient.OpSend, ann))
			ev[i].Seq, ev[i].ID, ev[j].Seq, ev[j].ID = ev[j].Seq, ev[j].ID, ev[i].Seq, ev[i].ID
			return ev
		}},
		{"a push was left out", "I5", func(t *testing.T, ev []Event) []Event {
			s := opening()
			s.private(ann, 1, 1)
			s.invoke(ann, 2, imclient.Private, bea)
			s.ack(ann, 2, imclient.Private, bea, privateConv, 2)
			s.private(ann, 3, 3)
			s.ending([]sent{privates(ann, 1, 1), privates(ann, 2, 2), privates(ann, 3, 3)})
			return s.events
		}},
		{"a push came twice on a connection", "I5", func(t *testing.T, ev []Event) []Event {
			i := find(t, ev, 1, is(imclient.OpPush, bea))
			return append(ev[:i+1:i+1], ev[i:]...)
		}},
		{"a push without a seq", "I5", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 0, is(imclient.OpPush, bea))].Seq = 0
			return ev
		}},
		{"a complete sync left one out", "I6", func(t *testing.T, ev []Event) []Event {
			return drop(ev, find(t, ev, 1, is(imclient.OpSync, ann)))
		}},
		{"a message was never pushed", "I7", func(t *testing.T, ev []Event) []Event {
			return drop(ev, find(t, ev, 0, is(imclient.OpPush, cyd)))
		}},
		{"a push came late", "I7", func(t *testing.T, ev []Event) []Event {
			i := find(t, ev, 1, is(imclient.OpPush, cyd))
			for ; i < len(ev); i++ {
				ev[i].T += 11 * time.Second
			}
			return ev
		}},
		{"a push took longer than its fault allows", "I7", func(t *testing.T, ev []Event) []Event {
			s := opening()
			s.add(Event{Conn: 1, Type: imclient.Invoke, Op: OpFault, Text: "logic-1", Reason: Kill})
			s.invoke(ann, 1, imclient.Private, bea)
			s.ack(ann, 1, imclient.Private, bea, privateConv, 1)
			s.add(Event{Conn: 1, Op: OpFault, Text: "logic-1", Reason: Kill})
			s.wait(3 * time.Second)
			s.see(imclient.OpPush, bea, 1, ann, 1, imclient.Private, bea, privateConv, 1)
			s.ending([]sent{privates(ann, 1, 1)})
			return s.events
		}},
		{"a stranger saw a message", "I8", func(t *testing.T, ev []Event) []Event {
			e := ev[find(t, ev, 0, is(imclient.OpPush, bea))]
			e.Client = cyd
			return append(ev, e)
		}},
		{"who has left saw a later message", "I8", func(t *testing.T, ev []Event) []Event {
			s := opening()
			s.grouped(ann, 1, 1)
			s.leave(cyd)
			s.grouped(ann, 2, 2)
			s.ending([]sent{groups(ann, 1, 1), groups(ann, 2, 2)})
			return s.events
		}},
		{"a message in another's name", "I8", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 0, is(imclient.OpPush, bea))].From = cyd
			return ev
		}},
		{"late, and the checker was late at another time only", "I7", func(t *testing.T, ev []Event) []Event {
			s := opening()
			s.add(Event{Op: OpLag, Seq: int64(5 * time.Second)})
			s.wait(time.Minute)
			s.invoke(ann, 1, imclient.Private, bea)
			s.ack(ann, 1, imclient.Private, bea, privateConv, 1)
			s.wait(12 * time.Second)
			s.see(imclient.OpPush, bea, 1, ann, 1, imclient.Private, bea, privateConv, 1)
			s.wait(2 * time.Minute)
			s.add(Event{Op: OpLag, Seq: int64(5 * time.Second)})
			s.ending([]sent{privates(ann, 1, 1)})
			return s.events
		}},
		{"a token in a log", "I8", func(t *testing.T, ev []Event) []Event {
			return append(ev, Event{Type: imclient.OK, Op: OpLeak, Text: "gateway-1.log", Reason: "the token of user 1"})
		}},
		{"accepted after the friendship had ended", "I9", func(t *testing.T, ev []Event) []Event {
			s := opening()
			s.add(Event{Client: ann, Type: imclient.Invoke, Op: OpUnfriend, To: bea})
			s.add(Event{Client: ann, Op: OpUnfriend, To: bea})
			s.private(bea, 1, 1)
			s.ending([]sent{privates(bea, 1, 1)})
			return s.events
		}},
		{"accepted after the membership had ended", "I9", func(t *testing.T, ev []Event) []Event {
			s := opening()
			s.leave(cyd)
			s.invoke(cyd, 1, imclient.Group, groupConv)
			s.ack(cyd, 1, imclient.Group, groupConv, groupConv, 1)
			s.ending([]sent{groups(cyd, 1, 1)})
			return s.events
		}},
		{"forbidden to a friend", "I9", func(t *testing.T, ev []Event) []Event {
			return forbiddenTo(ann, imclient.Private, bea, func(*story) {}, func(*story) {}).events
		}},
		{"forbidden to a member", "I9", func(t *testing.T, ev []Event) []Event {
			return forbiddenTo(cyd, imclient.Group, groupConv, func(*story) {}, func(*story) {}).events
		}},
		{"forbidden to a friend, and then allowed", "I9", func(t *testing.T, ev []Event) []Event {
			i := find(t, ev, 1, is(imclient.OpSend, ann))
			e := ev[i]
			e.Type, e.Code = imclient.Fail, imclient.CodeNotAllowed
			return append(ev[:i:i], append([]Event{e}, ev[i:]...)...)
		}},
		{"forbidden to who has become a friend again", "I9", func(t *testing.T, ev []Event) []Event {
			return forbiddenTo(ann, imclient.Private, bea, func(s *story) { s.unfriend(); s.friend() }, func(*story) {}).events
		}},
		{"a wrong status in the end", "I10", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 0, is(OpStatus, ann))].Code = imclient.CodeOffline
			return ev
		}},
		{"a last frame that is wrong", "I10", func(t *testing.T, ev []Event) []Event {
			i := find(t, ev, 0, is(OpStatus, ann))
			stale := Event{T: ev[i].T - time.Second, Client: ann, Type: imclient.OK, Op: OpPresence, From: bea, Code: imclient.CodeOffline}
			return append(ev[:i:i], append([]Event{stale}, ev[i:]...)...)
		}},
		{"too much memory", "I11", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 0, is(OpSample, 0))].ID = 3 << 30
			return ev
		}},
		{"goroutines that stay", "I11", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 1, is(OpSample, 0))].Seq = 5000
			return ev
		}},
		{"a counter that is not the last seq", "I12", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 0, is(OpConv, 0))].Seq++
			return ev
		}},
		{"an outbox that is not empty", "I12", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 0, is(OpOutbox, 0))].Seq = 3
			return ev
		}},
		{"rows that belong to nothing", "I12", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 0, is(OpOrphan, 0))].Seq = 1
			return ev
		}},
		{"an uploaded file that is gone", "I13", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 0, is(OpFile, ann))].Type = imclient.Fail
			return ev
		}},
		{"an uploaded file that is another", "I13", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 0, is(OpFile, ann))].Reason = "another sum"
			return ev
		}},
		{"a part of a file that was refused", "I13", func(_ *testing.T, ev []Event) []Event {
			return append(ev, Event{T: ev[len(ev)-1].T, Type: imclient.Fail, Op: OpFile, Text: "0123", Reason: "7 bytes of 9"})
		}},
		{"a whole file of one that was refused", "I13", func(_ *testing.T, ev []Event) []Event {
			return append(ev, Event{T: ev[len(ev)-1].T, Type: imclient.OK, Op: OpFile, Text: storedKey})
		}},
		{"a part that no gateway died over", "I13", func(_ *testing.T, ev []Event) []Event {
			return partOf(time.Second).events
		}},
		{"a part that was written after the last gateway died", "I13", func(_ *testing.T, ev []Event) []Event {
			return partOf(20*time.Second, func(s *story) { s.fault(1, Kill, "gateway-1", time.Second) }).events
		}},
		{"no space, and not said so", "I13", func(_ *testing.T, ev []Event) []Event {
			s := opening()
			s.fault(1, DiskFull, "uploads", 10*time.Second)
			s.wait(2 * time.Second)
			s.add(Event{Client: ann, Type: imclient.Fail, Op: OpUpload, ClientID: 1, Code: 500})
			return s.events
		}},
		{"said to have no space, with some", "I13", func(_ *testing.T, ev []Event) []Event {
			s := opening()
			s.fault(1, DiskFull, "mysql", 10*time.Second)
			s.wait(2 * time.Second)
			s.add(Event{Client: ann, Type: imclient.Fail, Op: OpUpload, ClientID: 1, Code: 507})
			return s.events
		}},
		{"a token that is taken after its login ended", "I14", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 1, is(OpToken, dan))].Type = imclient.OK
			ev[find(t, ev, 1, is(OpToken, dan))].T += time.Second
			return ev
		}},
		{"the epoch of another primary is the one before", "I17", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 1, is(OpEpoch, 0))].Text = "first"
			return ev
		}},
		{"a send of an overload without an end", "I16", func(_ *testing.T, ev []Event) []Event {
			return append(ev, Event{T: ev[len(ev)-1].T, Client: gil, ClientID: 9999, Type: imclient.Invoke, Op: imclient.OpSend})
		}},
		{"who vanished counts as online", "I15", func(t *testing.T, ev []Event) []Event {
			ev[find(t, ev, 1, is(OpGone, eve))].T += time.Minute
			return ev
		}},
	}
	seen := map[string]bool{}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v := Judge(c.bend(t, correct().events), Bounds{})
			require.False(t, v.Green())
			require.Contains(t, reds(v), c.want, explain(v))
			require.NotEmpty(t, v.Result(c.want).Sample)
		})
		seen[c.want] = true
	}
	require.Len(t, seen, 17, "an invariant without a violation in this table")
}

// What looks odd and is allowed stays green.
func TestJudge_AllowedHistoriesAreGreen(t *testing.T) {
	cases := map[string]func() *story{
		"an unknown send took effect": func() *story {
			s := opening()
			s.invoke(ann, 1, imclient.Private, bea)
			s.add(Event{Client: ann, Type: imclient.Info, Op: imclient.OpSend, ClientID: 1})
			s.ending([]sent{privates(ann, 1, 1)})
			return s
		},
		"an unknown send took none": func() *story {
			s := opening()
			s.invoke(ann, 1, imclient.Private, bea)
			s.add(Event{Client: ann, Type: imclient.Info, Op: imclient.OpSend, ClientID: 1})
			s.private(ann, 2, 1)
			s.ending([]sent{privates(ann, 2, 1)})
			return s
		},
		"a repeat on another connection": func() *story {
			s := opening()
			s.private(ann, 1, 1)
			s.add(Event{Client: bea, Conn: 1, Type: imclient.Info, Op: imclient.OpConnect})
			s.add(Event{Client: bea, Conn: 2, Op: imclient.OpConnect})
			s.see(imclient.OpPush, bea, 2, ann, 1, imclient.Private, bea, privateConv, 1)
			s.ending([]sent{privates(ann, 1, 1)})
			return s
		},
		"his own messages are not pushed to him": func() *story {
			s := opening()
			s.private(ann, 1, 1)
			s.private(bea, 1, 2)
			s.private(ann, 2, 3)
			s.ending([]sent{privates(ann, 1, 1), privates(bea, 1, 2), privates(ann, 2, 3)})
			return s
		},
		"passed over, and told so": func() *story {
			s := opening()
			s.private(ann, 1, 1)
			s.invoke(ann, 2, imclient.Private, bea)
			s.ack(ann, 2, imclient.Private, bea, privateConv, 2)
			s.add(Event{Client: bea, Conn: 1, Op: OpSyncNeeded, Conversation: privateConv})
			s.private(ann, 3, 3)
			s.add(Event{Client: bea, Conn: 1, Type: imclient.Info, Op: imclient.OpConnect})
			s.ending([]sent{privates(ann, 1, 1), privates(ann, 2, 2), privates(ann, 3, 3)})
			return s
		},
		"sent while the friendship ended": func() *story {
			s := opening()
			s.add(Event{Client: ann, Type: imclient.Invoke, Op: OpUnfriend, To: bea})
			s.invoke(bea, 1, imclient.Private, ann)
			s.add(Event{Client: ann, Op: OpUnfriend, To: bea})
			s.ack(bea, 1, imclient.Private, ann, privateConv, 1)
			s.see(imclient.OpPush, ann, 1, bea, 1, imclient.Private, ann, privateConv, 1)
			s.ending([]sent{privates(bea, 1, 1)})
			return s
		},
		"accepted after a new friendship was asked for": func() *story {
			s := opening()
			s.add(Event{Client: ann, Type: imclient.Invoke, Op: OpUnfriend, To: bea})
			s.add(Event{Client: ann, Op: OpUnfriend, To: bea})
			s.add(Event{Client: bea, Type: imclient.Invoke, Op: OpFriend, To: ann})
			s.private(bea, 1, 1)
			s.ending([]sent{privates(bea, 1, 1)})
			return s
		},
		"stored though refused on another connection, soon after, on a slow machine": func() *story {
			return refusedElsewhere(100*time.Millisecond, time.Second)
		},
		"refused, sent for the first time on that connection, sent again there, and stored": func() *story {
			s := opening()
			s.invoke(ann, 1, imclient.Private, bea)
			s.parting()
			s.add(Event{Client: ann, Conn: 1, Type: imclient.Info, Op: imclient.OpConnect})
			s.add(Event{Client: ann, Conn: 2, Op: imclient.OpConnect})
			s.add(Event{Client: ann, Conn: 2, Type: imclient.Invoke, Op: imclient.OpSent, ClientID: 1})
			s.add(Event{Client: ann, Conn: 2, Type: imclient.Invoke, Op: imclient.OpResend, ClientID: 1})
			s.add(Event{Client: ann, Conn: 2, Type: imclient.Fail, Op: imclient.OpSend, ClientID: 1, Code: 1003})
			s.see(imclient.OpPush, bea, 1, ann, 1, imclient.Private, bea, privateConv, 1)
			s.ending([]sent{privates(ann, 1, 1)})
			return s
		},
		"a repeat that had no chance": func() *story {
			s := opening()
			s.private(ann, 1, 1)
			s.add(Event{Client: ann, Type: imclient.Invoke, Op: OpAgain, ClientID: 1, Channel: imclient.Private, To: bea, Text: text(ann, 1, imclient.Private, bea)})
			s.add(Event{Client: ann, Type: imclient.Fail, Op: OpAgain, ClientID: 1, Channel: imclient.Private, To: bea, Code: 503, Reason: "overloaded"})
			s.ending([]sent{privates(ann, 1, 1)})
			return s
		},
		"refused while the friendship ended": func() *story {
			return forbiddenTo(ann, imclient.Private, bea, (*story).parting, func(s *story) {
				s.add(Event{Client: ann, Op: OpUnfriend, To: bea})
			})
		},
		"refused after the friendship ended on its way": func() *story {
			return forbiddenTo(ann, imclient.Private, bea, func(*story) {}, (*story).unfriend)
		},
		"refused before a friendship was confirmed": func() *story {
			return forbiddenTo(ann, imclient.Private, bea, func(s *story) {
				s.unfriend()
				s.add(Event{Client: ann, Type: imclient.Invoke, Op: OpFriend, To: bea})
			}, func(s *story) {
				s.add(Event{Client: ann, Op: OpFriend, To: bea})
			})
		},
		"refused after the membership had ended": func() *story {
			return forbiddenTo(cyd, imclient.Group, groupConv, func(s *story) { s.leave(cyd) }, func(s *story) { s.join(cyd) })
		},
		"long on its way, accepted in a new membership": func() *story {
			s := opening()
			s.leave(cyd)
			s.invoke(cyd, 1, imclient.Group, groupConv)
			s.join(cyd)
			s.ack(cyd, 1, imclient.Group, groupConv, groupConv, 1)
			for _, user := range []int64{ann, bea, cyd} {
				s.see(imclient.OpPush, user, 1, cyd, 1, imclient.Group, groupConv, groupConv, 1)
			}
			s.ending([]sent{groups(cyd, 1, 1)})
			return s
		},
		"no space for a file, and said so": func() *story {
			s := opening()
			s.fault(1, DiskFull, "uploads", 10*time.Second)
			s.wait(2 * time.Second)
			s.add(Event{Client: ann, Type: imclient.Fail, Op: OpUpload, ClientID: 1, Code: 507})
			s.ending(nil)
			return s
		},
		"a part of a file whose gateway was killed": func() *story {
			return partOf(500*time.Millisecond, func(s *story) { s.fault(1, Kill, "gateway-1", time.Second) })
		},
		"a whole file of one that was accepted, and one of which it is not known": func() *story {
			s := opening()
			s.add(Event{Client: ann, Op: OpUpload, ClientID: 1, Text: "/files/" + storedKey + "/x.bin", Reason: "its sum"})
			s.add(Event{Client: ann, Type: imclient.Info, Op: OpUpload, ClientID: 2, Reason: "EOF"})
			s.ending(nil)
			s.add(Event{Op: OpFile, Text: storedKey})
			s.add(Event{Op: OpFile, Text: strings.Repeat("a", 32)})
			return s
		},
		"late while the checker was": func() *story {
			s := opening()
			s.invoke(ann, 1, imclient.Private, bea)
			s.ack(ann, 1, imclient.Private, bea, privateConv, 1)
			s.wait(12 * time.Second)
			s.see(imclient.OpPush, bea, 1, ann, 1, imclient.Private, bea, privateConv, 1)
			s.add(Event{Op: OpLag, Seq: int64(5 * time.Second)})
			s.ending([]sent{privates(ann, 1, 1)})
			return s
		},
		"late while something failed": func() *story {
			s := opening()
			s.add(Event{Conn: 1, Type: imclient.Invoke, Op: OpFault, Text: "mysql", Reason: Pause})
			s.invoke(ann, 1, imclient.Private, bea)
			s.ack(ann, 1, imclient.Private, bea, privateConv, 1)
			s.wait(20 * time.Second)
			s.add(Event{Conn: 1, Op: OpFault, Text: "mysql", Reason: Pause})
			s.wait(2 * time.Second)
			s.see(imclient.OpPush, bea, 1, ann, 1, imclient.Private, bea, privateConv, 1)
			s.ending([]sent{privates(ann, 1, 1)})
			return s
		},
		"concurrent sends in either order": func() *story {
			s := opening()
			s.invoke(ann, 1, imclient.Private, bea)
			s.invoke(bea, 1, imclient.Private, ann)
			s.ack(bea, 1, imclient.Private, ann, privateConv, 1)
			s.ack(ann, 1, imclient.Private, bea, privateConv, 2)
			s.see(imclient.OpPush, ann, 1, bea, 1, imclient.Private, ann, privateConv, 1)
			s.see(imclient.OpPush, bea, 1, ann, 1, imclient.Private, bea, privateConv, 2)
			s.ending([]sent{privates(bea, 1, 1), privates(ann, 1, 2)})
			return s
		},
		"the first of two attempts on a connection is refused, the second accepted": func() *story {
			s := opening()
			s.invoke(ann, 1, imclient.Private, bea)
			s.parting()
			s.add(Event{Client: ann, Conn: 1, Type: imclient.Invoke, Op: imclient.OpResend, ClientID: 1})
			s.add(Event{Client: ann, Conn: 1, Type: imclient.Fail, Op: imclient.OpSend, ClientID: 1, Code: 1003})
			s.see(imclient.OpPush, bea, 1, ann, 1, imclient.Private, bea, privateConv, 1)
			s.ending([]sent{privates(ann, 1, 1)})
			return s
		},
		"a temporary refusal that a later try overcame": func() *story {
			s := opening()
			s.invoke(ann, 1, imclient.Private, bea)
			s.add(Event{Client: ann, Conn: 1, Type: imclient.Fail, Op: imclient.OpSend, ClientID: 1, Code: 500})
			s.ack(ann, 1, imclient.Private, bea, privateConv, 1)
			s.see(imclient.OpPush, bea, 1, ann, 1, imclient.Private, bea, privateConv, 1)
			s.ending([]sent{privates(ann, 1, 1)})
			return s
		},
	}
	for name, tell := range cases {
		t.Run(name, func(t *testing.T) {
			v := Judge(tell().events, Bounds{})
			require.True(t, v.Green(), explain(v))
		})
	}
}
