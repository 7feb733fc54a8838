package bench

import "sync/atomic"

// track is what one receiver got of one flow: the seq of each message, by number;
// 0 for those that did not come.
type track struct{ seqs []int32 }

type arrival int

const (
	arrivedFirst arrival = iota
	arrivedLate          // first, but after a later one of its flow
	arrivedAgain
)

// arrive notes message n.
func (t *track) arrive(n int, seq int32) arrival {
	if n < len(t.seqs) {
		if t.seqs[n] != seqNone {
			return arrivedAgain
		}
		t.seqs[n] = seq
		return arrivedLate
	}
	for len(t.seqs) < n {
		t.seqs = append(t.seqs, seqNone)
	}
	t.seqs = append(t.seqs, seq)
	return arrivedFirst
}

func (t *track) got(n int) int32 {
	if t == nil || n >= len(t.seqs) {
		return seqNone
	}
	return t.seqs[n]
}

// order is what one client knows of the seqs of one conversation.
type order struct {
	pushed    int64 // the last on this connection; 0 after a reconnection
	low, high int64 // over the whole run, own messages included
	count     int64 // distinct seqs seen, own messages included
}

func (o *order) seen(seq int64) {
	if o.low == 0 || seq < o.low {
		o.low = seq
	}
	o.high = max(o.high, seq)
	o.count++
}

// faults counts, over all clients, what must not happen.
type faults struct {
	repeated, reordered, disagree, contradicted, altered, redelivered, disconnects, unknown atomic.Int64
}

// account closes the books of a run whose clients have stopped reading.
func (r *run) account() Checks {
	c := Checks{
		Repeated: r.faults.repeated.Load(), Reordered: r.faults.reordered.Load(), Disagree: r.faults.disagree.Load(),
		Contradicted: r.faults.contradicted.Load(), Altered: r.faults.altered.Load(), Redelivered: r.faults.redelivered.Load(),
		Disconnects: r.faults.disconnects.Load(), Unknown: r.faults.unknown.Load(),
	}
	r.reasonsMu.Lock()
	for reason, n := range r.reasons {
		if c.Reasons == nil {
			c.Reasons = map[string]int64{}
		}
		c.Reasons[reason] = n
		c.Refused += n
	}
	r.reasonsMu.Unlock()
	for _, f := range r.flows {
		c.Sent += int64(f.sent)
		f.sessionOrder(&c)
		for n := range f.sent {
			seq := f.at(n).seq.Load()
			acked := seq > 0 || seq == seqUnknown
			if acked {
				c.Acked++
			} else if seq == seqNone {
				c.Unsettled++
			}
			for _, to := range f.receivers {
				got := to.tracks[f].got(n)
				switch {
				case got == seqNone && acked:
					c.Lost++
				case got == seqNone:
				case acked && got != seq:
					c.Disagree++
					c.Delivered++
				case seq == seqRefused && !f.at(n).resent.Load():
					c.Contradicted++
					c.Delivered++
				default:
					c.Delivered++
				}
			}
		}
	}
	// After a reconnection a client may have read part of a conversation from
	// the replay of an earlier run; then the sum proves nothing.
	if c.Disconnects == 0 && c.Unsettled == 0 && c.Unknown == 0 && c.Refused == 0 && !r.churned {
		for _, cl := range r.clients {
			for _, o := range cl.orders {
				if o.count > 0 {
					c.Holes += max(0, o.high-o.low+1-o.count)
				}
			}
		}
	}
	return c
}

// sessionOrder checks that seqs rise with the order in which a connection sent.
// That is promised up to the first message that is refused, or was sent again
// because its outcome was not known.
func (f *flow) sessionOrder(c *Checks) {
	promised := true
	var last int32
	for n := range f.sent {
		e := f.at(n)
		seq := e.seq.Load()
		promised = promised && seq != seqNone && seq != seqRefused && !e.resent.Load()
		if seq <= 0 {
			continue
		}
		switch {
		case seq > last:
			last = seq
		case promised:
			c.Reordered++
		default:
			c.Inverted++
		}
	}
}
