package check

import (
	"fmt"
	"time"

	"im-services/internal/imclient"
)

// Bounds are the figures that the system is held to. Zero values are the
// published ones.
type Bounds struct {
	// HealthyP99 bounds the 99th percentile of the time from acknowledgement to
	// the last recipient online while nothing fails (G8).
	HealthyP99 time.Duration
	// Late is how long a push may take at most once nothing fails any more (G8,
	// the watermark's bound).
	Late time.Duration
	// MaxLag is how late the checker's own timers may be, 99th percentile, for
	// latencies to be judged at all: a machine without a processor to spare says
	// nothing about the system.
	MaxLag time.Duration
	// MaxRSS bounds the resident memory of one service.
	MaxRSS int64
	// Presence bounds how long a change of presence takes to show (G9).
	Presence time.Duration
}

func (b Bounds) withDefaults() Bounds {
	set := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	set(&b.HealthyP99, 200*time.Millisecond)
	set(&b.Late, 10*time.Second)
	set(&b.MaxLag, 50*time.Millisecond)
	set(&b.Presence, 7*time.Second)
	if b.MaxRSS == 0 {
		b.MaxRSS = 1 << 30
	}
	return b
}

// Judge says what a history proves. It only reads events.
func Judge(events []Event, b Bounds) *Verdict {
	b = b.withDefaults()
	x := newIndex(events)
	x.slack = x.starved(b)
	v := &Verdict{Phases: x.phases}
	v.Results = append(v.Results,
		x.judgeLost(), x.judgeDuplicates(), x.judgeOrder(), x.judgeSessions(), x.judgePushes(), x.judgeSync())
	v.Results = append(v.Results, x.judgeLiveness(b, v))
	v.Results = append(v.Results,
		x.judgeLeaks(), x.judgeAuthority(), x.judgePresence(b), x.judgeResources(b), x.judgeStore(), x.judgeUploads(b),
		x.judgeLogins(b), x.judgeSlow(b), x.judgeOverload(b), x.judgeFailOver(b))
	x.count(v)
	return v
}

func (s *send) String() string {
	return fmt.Sprintf("user %d's message %d to %s", s.client, s.clientID, s.key)
}

func (p place) String() string { return fmt.Sprintf("%d/%d", p.conv, p.seq) }

// judgeLost: what was acknowledged is stored as it was sent and where the
// acknowledgement said, everybody entitled reads it, and nothing else is stored.
func (x *index) judgeLost() Result {
	r := Result{ID: "I1", Name: "nothing acknowledged is lost, nothing unexpected is stored"}
	if len(x.read) == 0 && !x.fromDB {
		r.Skipped = "nobody has read everything in the end"
		return r
	}
	type reading struct {
		user int64
		place
	}
	type reader struct{ user, conv int64 }
	reads, synced, withHistory := map[reading]bool{}, map[reading]bool{}, map[reader]bool{}
	for i := range x.events {
		e := &x.events[i]
		switch {
		case e.Op == OpRead:
			reads[reading{e.Client, place{e.Conversation, e.Seq}}] = true
		case e.Op == OpHistory:
			withHistory[reader{e.Client, e.Conversation}] = true
		case e.Op == imclient.OpSync && e.Conn == sessionFinal:
			synced[reading{e.Client, place{e.Conversation, e.Seq}}] = true
		}
	}
	// Who has left a group has no history of it any more, and what he may see
	// comes by sync alone.
	has := func(user int64, p place) bool {
		if withHistory[reader{user, p.conv}] {
			return reads[reading{user, p}]
		}
		return synced[reading{user, p}]
	}
	for user, done := range x.read {
		if !done {
			r.red("user %d could not read everything in the end", user)
		}
	}
	for _, s := range x.order {
		if !s.acked {
			continue
		}
		r.Checked++
		p := place{s.conv, s.seq}
		m := x.truth[p]
		switch {
		case m == nil:
			r.red("%s, acknowledged as %s at %s, is not stored", s, p, short(s.done))
			continue
		case m.from != s.client || m.clientID != s.clientID || m.id != s.id:
			r.red("%s was acknowledged as %s, message %d; there stands message %d, user %d's %d", s, p, s.id, m.id, m.from, m.clientID)
			continue
		case m.text != s.text:
			r.red("%s is stored as %q, not %q", s, m.text, s.text)
		}
		if s.done >= x.quietAt {
			continue // some had begun to read by then
		}
		for _, user := range append(x.recipients(s), s.client) {
			if x.read[user] && x.mustHave(user, s) && !has(user, p) {
				r.red("%s, %s, is missing from what user %d reads", s, p, user)
			}
		}
	}
	for p, m := range x.truth {
		if !isCanary(m.text) {
			continue
		}
		r.Checked++
		switch s := x.sends[sendKey{m.from, m.clientID}]; {
		case s == nil:
			r.red("%s, user %d's %d, was sent by nobody: %q", p, m.from, m.clientID, m.text)
		case x.settled(s, m):
			r.red("%s was refused (code %d) and is stored as %s", s, s.code, p)
		}
	}
	return r
}

// reusedID is the reason of the refusal of an id with other content.
const reusedID = "client_msg_id_reused"

// judgeDuplicates: a client message id names one message, everywhere and for
// ever, and a place holds one message. Who repeats what was acknowledged gets the
// first answer, whether he may still write or not; who repeats what was not answered
// gets an answer.
func (x *index) judgeDuplicates() Result {
	r := Result{ID: "I2", Name: "one message per client message id, one place per message, and an end to every send"}
	type identity struct {
		place
		id int64
	}
	bySend := map[sendKey]identity{}
	byPlace := map[place]sendKey{}
	byID := map[int64]place{}
	see := func(e *Event, from int64) {
		if e.Seq == 0 || e.ID == 0 {
			return
		}
		r.Checked++
		k, p := sendKey{from, e.ClientID}, place{e.Conversation, e.Seq}
		// The client message ids of what the system itself writes are its own affair.
		if e.Text == "" || isCanary(e.Text) {
			me := identity{p, e.ID}
			if had, ok := bySend[k]; !ok {
				bySend[k] = me
			} else if had != me {
				r.red("user %d's message %d is %s (id %d) and, by %s, %s (id %d)", from, e.ClientID, had.place, had.id, e.Op, p, e.ID)
			}
			if had, ok := byPlace[p]; !ok {
				byPlace[p] = k
			} else if had != k {
				r.red("%s holds user %d's message %d and, by %s, user %d's %d", p, had.client, had.clientID, e.Op, from, e.ClientID)
			}
		}
		if had, ok := byID[e.ID]; !ok {
			byID[e.ID] = p
		} else if had != p {
			r.red("message id %d stands at %s and, by %s, at %s", e.ID, had, e.Op, p)
		}
	}
	x.judgeSettled(&r)
	for i := range x.events {
		e := &x.events[i]
		switch e.Op {
		case imclient.OpSend, OpAgain:
			switch {
			case e.Type == imclient.OK:
				see(e, e.Client)
			case e.Op == OpAgain && e.Type == imclient.Fail && (e.Code == imclient.CodeNotAllowed || e.Reason == reusedID):
				r.Checked++
				r.red("user %d's message %d was acknowledged, and refused when it was sent again at %s (code %d, %s)", e.Client, e.ClientID, short(e.T), e.Code, e.Reason)
			}
		case imclient.OpPush, imclient.OpSync, OpRead, OpRow:
			see(e, e.From)
		case OpConflict:
			if e.Type == imclient.OK {
				r.red("user %d's message %d was accepted again with another text, as %d/%d", e.Client, e.ClientID, e.Conversation, e.Seq)
			}
		}
	}
	return r
}

// short prints a moment of the history's clock.
func short(d time.Duration) string { return d.Round(time.Millisecond).String() }
