package check

import "time"

const (
	// noteHeld is how long a system may leave unanswered what somebody sends again
	// after it refused the same on another connection, unheard.
	noteHeld = 45 * time.Second
	// settledWithin is how long a client that stands on one connection, to a system
	// in which nothing fails, has to wait for the end of a message at most: it sends
	// again after that time, and gets its answer.
	settledWithin = noteHeld + 2*ackTimeout + 4*time.Second
	// settlePatience is how long a run waits for the next of them.
	settlePatience = settledWithin + 5*time.Second
)

// judgeSettled: to send a message again settles it (G2), so nothing is left without
// an end once everything is healed and its client has stayed connected for long
// enough. The crowd of an overload sends nothing again, and has its own judge.
func (x *index) judgeSettled(r *Result) {
	healed := forever
	for _, p := range x.phases {
		if p.Name == PhaseHeal {
			healed = p.At
		}
	}
	if healed == forever {
		return
	}
	for _, s := range x.order {
		if s.acked || s.refused || x.crowd[s.client] {
			continue
		}
		r.Checked++
		for _, c := range x.spans[s.client] {
			from := max(healed, c.begin, s.invoke)
			if stood := min(c.end, x.quietAt, x.end) - from; stood > settledWithin && stood > settledWithin+x.unnoticed(from, from+stood, x.slack) {
				r.red("%s, sent at %s, was neither acknowledged nor refused, though connection %d stood for %s more after everything was healed", s, short(s.invoke), c.conn, short(stood))
				break
			}
		}
	}
}
