package gateway

import (
	"cmp"
	"slices"
	"time"
)

const (
	// laneFull is how many sends may be outstanding on each lane in use before one
	// more is used: a transaction or two of one replica.
	laneFull = 192
	// laneCalm is for how long fewer lanes must have been enough before one is
	// given up.
	laneCalm = 10 * time.Second
)

// spread decides how many of logic's replicas get the conversations.
//
// What a transaction, an envelope or a stream message costs, it costs nearly
// regardless of how much is in it, so as long as one replica keeps up the sends of
// all conversations should meet there; the others stand by with open lanes, and
// take over at once when it goes. Under load as many take part as are needed, up
// to all. Gateways need not agree on the number.
type spread struct {
	lanes int           // at least 1
	calm  time.Duration // since when one lane less would do
}

// adjust takes the number of outstanding sends and of lanes there are.
func (s *spread) adjust(now time.Duration, outstanding, lanes int) {
	switch {
	case outstanding > laneFull*s.lanes:
		s.lanes = min(outstanding/laneFull+1, max(lanes, 1))
		s.calm = now
	case s.lanes == 1 || outstanding > laneFull*(s.lanes-1)/4:
		s.calm = now
	case now-s.calm >= laneCalm:
		s.lanes--
		s.calm = now
	}
}

// rankLocked puts the lanes in the order in which they are taken into use, the
// same on all gateways.
func (l *lanes) rankLocked() {
	l.ranked = l.ranked[:0]
	for _, n := range l.all {
		l.ranked = append(l.ranked, n)
	}
	slices.SortFunc(l.ranked, func(a, b *lane) int { return cmp.Compare(a.hash, b.hash) })
}

// pickLocked chooses a lane for a key among those in use; one that is leaving
// only if there is no other.
func (l *lanes) pickLocked(key uint64) *lane {
	var best, leaving *lane
	var high uint64
	used := 0
	for _, n := range l.ranked {
		switch {
		case !n.up:
		case n.leaving:
			leaving = n
		default:
			if s := score(key, n.hash); best == nil || s > high {
				best, high = n, s
			}
			if used++; used == l.spread.lanes {
				return best
			}
		}
	}
	if best == nil {
		return leaving
	}
	return best
}
