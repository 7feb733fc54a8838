package check

import (
	"im-services/internal/imclient"
)

// What a process may have more in the end than before the faults, beside ten
// percent: pools fill, and connections of others come and go.
const (
	slackGoroutines = 100
	slackFiles      = 60
)

// judgeResources: memory stays bounded, goroutines and files come back to what
// they were.
func (x *index) judgeResources(b Bounds) Result {
	r := Result{ID: "I11", Name: "memory is bounded, goroutines and files come back"}
	type usage struct{ goroutines, files int64 }
	before, after := map[string]usage{}, map[string]usage{}
	phase := ""
	for i := range x.events {
		e := &x.events[i]
		switch e.Op {
		case OpPhase:
			phase = e.Text
		case OpSample:
			r.Checked++
			if e.ID > b.MaxRSS {
				r.red("%s held %d MB at %s; the bound is %d MB", e.Text, e.ID>>20, short(e.T), b.MaxRSS>>20)
			}
			u := usage{e.Seq, int64(e.Code)}
			if phase == PhaseWarm {
				before[e.Text] = usage{max(u.goroutines, before[e.Text].goroutines), max(u.files, before[e.Text].files)}
			}
			if phase == PhaseQuiet {
				after[e.Text] = u
			}
		}
	}
	for name, a := range after {
		was, ok := before[name]
		if !ok {
			continue
		}
		if a.goroutines > was.goroutines*11/10+slackGoroutines {
			r.red("%s has %d goroutines in the end and had %d", name, a.goroutines, was.goroutines)
		}
		if a.files > was.files*11/10+slackFiles {
			r.red("%s has %d open files in the end and had %d", name, a.files, was.files)
		}
	}
	if r.Checked == 0 {
		r.Skipped = "the processes' metrics are not to be had"
	}
	return r
}

// judgeStore: the database agrees with itself, and nothing is left to be done.
func (x *index) judgeStore() Result {
	r := Result{ID: "I12", Name: "the database agrees with itself"}
	if !x.fromDB {
		r.Skipped = "the database is not to be had"
		return r
	}
	for i := range x.events {
		e := &x.events[i]
		switch e.Op {
		case OpConv:
			r.Checked++
			list := x.convs[e.Conversation]
			top := int64(0)
			if len(list) > 0 {
				top = list[len(list)-1].seq
			}
			if e.Seq != top || e.Seq != int64(len(list)) {
				r.red("conversation %d counts to %d, has %d messages, the last with seq %d", e.Conversation, e.Seq, len(list), top)
			}
		case OpOutbox:
			r.Checked++
			if e.Seq != 0 {
				r.red("%d rows are left in the outbox", e.Seq)
			}
		case OpOrphan:
			r.Checked++
			if e.Seq != 0 {
				r.red("%d rows of %s belong to nothing", e.Seq, e.Text)
			}
		}
	}
	return r
}

// count fills in the figures that no invariant needed.
func (x *index) count(v *Verdict) {
	f := &v.Figures
	f.Length = x.end
	clients, kinds, targets := map[int64]bool{}, map[string]bool{}, map[string]bool{}
	for _, s := range x.order {
		f.Sends++
		clients[s.client] = true
		switch {
		case s.acked:
			f.Acked++
		case s.refused:
			f.Refused++
		default:
			f.Unknown++
		}
		if s.resent {
			f.Resent++
		}
	}
	f.Clients = len(clients)
	for i := range x.events {
		e := &x.events[i]
		switch {
		case e.Op == imclient.OpPush:
			f.Pushes++
			if e.Type == imclient.Fail {
				f.Repeats++
			}
		case e.Op == imclient.OpConnect && e.Type == imclient.OK:
			f.Connects++
		case (e.Op == OpFriend || e.Op == OpUnfriend) && e.Type == imclient.OK:
			f.FriendChanges++
		case (e.Op == OpJoin || e.Op == OpLeave) && e.Type == imclient.OK:
			f.MemberChanges++
		case e.Op == OpSynced && e.Type == imclient.OK:
			f.SyncRounds++
		case e.Op == OpRead:
			f.HistoryRows++
		case e.Op == OpRow:
			f.DBRow++
		}
	}
	if len(x.events) > 0 {
		f.Length = x.end - x.events[0].T
	}
	for _, w := range x.faults {
		f.Faults++
		kinds[w.Kind] = true
		targets[w.Target] = true
	}
	f.FaultKinds, f.Targets = len(kinds), len(targets)
}
