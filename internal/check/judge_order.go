package check

import (
	"slices"
	"time"

	"im-services/internal/imclient"
)

// judgeOrder: seqs are 1 to n without a gap, ids rise with them, everybody reads
// the same list, and what was acknowledged before another was sent stands before it.
func (x *index) judgeOrder() Result {
	r := Result{ID: "I3", Name: "one gapless order, the same for all, true to real time"}
	for conv, list := range x.convs {
		for i, m := range list {
			r.Checked++
			if i == 0 && m.seq != 1 && x.fromDB {
				r.red("conversation %d begins with seq %d", conv, m.seq)
			}
			if i > 0 && m.seq != list[i-1].seq+1 {
				r.red("conversation %d has nothing between seq %d and %d", conv, list[i-1].seq, m.seq)
			}
			if i > 0 && m.id <= list[i-1].id {
				r.red("conversation %d: id %d at seq %d is not above id %d before it", conv, m.id, m.seq, list[i-1].id)
			}
		}
	}
	x.judgeReaders(&r)
	x.judgeRealTime(&r)
	return r
}

// judgeReaders: every reader's list is the true one, from where his begins, and is
// as long as the server says.
func (x *index) judgeReaders(r *Result) {
	type reader struct{ user, conv int64 }
	last := map[reader]int64{}
	for i := range x.events {
		e := &x.events[i]
		k := reader{e.Client, e.Conversation}
		if e.Op == OpHistory {
			r.Checked++
			if e.Seq != e.ID {
				r.red("user %d reads %d rows of conversation %d, which is said to have %d", e.Client, e.Seq, e.Conversation, e.ID)
			}
			if list := x.convs[e.Conversation]; len(list) > 0 && last[k] != list[len(list)-1].seq {
				r.red("user %d reads conversation %d up to seq %d; it ends with %d", e.Client, e.Conversation, last[k], list[len(list)-1].seq)
			}
		}
		if e.Op != OpRead {
			continue
		}
		if prev, ok := last[k]; ok && e.Seq != prev+1 {
			r.red("user %d reads seq %d of conversation %d right after seq %d", e.Client, e.Seq, e.Conversation, prev)
		}
		last[k] = e.Seq
		if m := x.truth[place{e.Conversation, e.Seq}]; m == nil || m.id != e.ID || m.from != e.From || m.text != e.Text {
			r.red("user %d reads at %d/%d what is not there: message %d of user %d", e.Client, e.Conversation, e.Seq, e.ID, e.From)
		}
	}
}

// judgeRealTime sweeps down by seq, holding the least time at which a higher one
// was acknowledged: a lower one sent after that is out of order.
func (x *index) judgeRealTime(r *Result) {
	byConv := map[int64][]*send{}
	for _, s := range x.order {
		if s.acked {
			byConv[s.conv] = append(byConv[s.conv], s)
		}
	}
	for _, list := range byConv {
		slices.SortFunc(list, func(a, b *send) int { return int(b.seq - a.seq) })
		least, of := forever, (*send)(nil)
		for _, s := range list {
			r.Checked++
			if least < s.invoke {
				r.red("%s, sent at %s, has seq %d; seq %d was acknowledged before that, at %s", s, short(s.invoke), s.seq, of.seq, short(least))
			}
			if s.done < least {
				least, of = s.done, s
			}
		}
	}
}

// judgeSessions: what a client sent one after another on one connection stands
// in that order, up to the first that had to be sent again or was refused.
func (x *index) judgeSessions() Result {
	r := Result{ID: "I4", Name: "the sends of one connection keep their order"}
	type line struct {
		client int64
		key    convKey
	}
	last := map[line]*send{}
	for _, s := range x.order {
		k := line{s.client, s.key}
		if !s.acked || s.resent || s.conn == 0 {
			if s.conn != 0 || !s.acked { // sends over HTTP stand beside the connection
				delete(last, k)
			}
			continue
		}
		r.Checked++
		if prev := last[k]; prev != nil && prev.conn == s.conn && s.seq <= prev.seq {
			r.red("%s has seq %d; message %d, sent before it on connection %d, has %d", s, s.seq, prev.clientID, s.conn, prev.seq)
		}
		last[k] = s
	}
	return r
}

// judgePushes: on one connection the pushes of a conversation rise by one from
// where they begin; only what the user himself sent is left out, or what he was
// told to read by other means.
func (x *index) judgePushes() Result {
	r := Result{ID: "I5", Name: "pushes on a connection rise by one, or say that they do not"}
	type line struct {
		client int64
		conn   int
		conv   int64
	}
	type state struct {
		seq    int64
		excuse bool
	}
	at := map[line]state{}
	for i := range x.events {
		e := &x.events[i]
		k := line{e.Client, e.Conn, e.Conversation}
		switch e.Op {
		case OpSyncNeeded:
			s := at[k]
			s.excuse = true
			at[k] = s
		case imclient.OpPush:
			r.Checked++
			s, seen := at[k]
			switch {
			case e.Seq <= 0:
				r.red("user %d was pushed message %d without a seq", e.Client, e.ID)
				continue
			case !seen || s.seq == 0:
			case e.Seq <= s.seq:
				r.red("user %d, connection %d: seq %d of conversation %d came after %d, at %s", e.Client, e.Conn, e.Seq, e.Conversation, s.seq, short(e.T))
			case e.Seq > s.seq+1 && !s.excuse && !x.ownOnly(e, s.seq):
				r.red("user %d, connection %d: seq %d of conversation %d came right after %d, at %s", e.Client, e.Conn, e.Seq, e.Conversation, s.seq, short(e.T))
			}
			if m := x.truth[place{e.Conversation, e.Seq}]; m == nil && (x.fromDB || len(x.read) > 0) && x.keyKnown(e.Conversation) {
				r.red("user %d was pushed %d/%d, which is not stored", e.Client, e.Conversation, e.Seq)
			}
			at[k] = state{seq: max(e.Seq, s.seq)}
		}
	}
	return r
}

func (x *index) keyKnown(conv int64) bool {
	_, ok := x.keys[conv]
	return ok
}

// ownOnly reports whether everything between after and e is the client's own, in
// a private conversation: that is not sent back to him.
func (x *index) ownOnly(e *Event, after int64) bool {
	if e.Channel == imclient.Group {
		return false
	}
	for seq := after + 1; seq < e.Seq; seq++ {
		if m := x.truth[place{e.Conversation, seq}]; m == nil || m.from != e.Client {
			return false
		}
	}
	return true
}

// judgeSync: a round of syncing that the server called complete has brought
// everything that was acknowledged before the round began.
func (x *index) judgeSync() Result {
	r := Result{ID: "I6", Name: "a complete sync leaves nothing out"}
	type session struct {
		client int64
		conn   int
	}
	type sessionState struct {
		has   map[place]bool
		next  int // into acked
		began time.Duration
	}
	acked := slices.Clone(x.order)
	acked = slices.DeleteFunc(acked, func(s *send) bool { return !s.acked })
	slices.SortFunc(acked, func(a, b *send) int { return int(a.done - b.done) })
	state := map[session]*sessionState{}
	for i := range x.events {
		e := &x.events[i]
		k := session{e.Client, e.Conn}
		s := state[k]
		if (e.Op == imclient.OpSync || e.Op == OpSynced) && s == nil {
			s = &sessionState{has: map[place]bool{}}
			state[k] = s
		}
		switch {
		case e.Op == imclient.OpSync:
			s.has[place{e.Conversation, e.Seq}] = true
		case e.Op == OpSynced && e.Type == imclient.Invoke:
			s.began = e.T
		case e.Op == OpSynced && e.Type == imclient.OK:
			r.Checked++
			for ; s.next < len(acked) && acked[s.next].done < s.began; s.next++ {
				a := acked[s.next]
				if x.mustHave(e.Client, a) && !s.has[place{a.conv, a.seq}] {
					r.red("user %d's sync of %s was called complete and left out %s, %s, acknowledged at %s",
						e.Client, short(s.began), a, place{a.conv, a.seq}, short(a.done))
				}
			}
		}
	}
	return r
}
