package imclient

// seen remembers which seqs of one conversation were shown or sent, one bit
// each. The zero value has seen nothing.
type seen struct {
	bits  []uint64
	floor int64 // every seq up to it is set
	shown int64 // the highest seq that was shown
}

// add sets seq, which is positive, and reports whether it was new.
func (s *seen) add(seq int64) bool {
	word, bit := int((seq-1)>>6), uint64(1)<<((seq-1)&63)
	for len(s.bits) <= word {
		s.bits = append(s.bits, 0)
	}
	if s.bits[word]&bit != 0 {
		return false
	}
	s.bits[word] |= bit
	for s.has(s.floor + 1) {
		s.floor++
	}
	return true
}

func (s *seen) has(seq int64) bool {
	word := int((seq - 1) >> 6)
	return word < len(s.bits) && s.bits[word]&(1<<((seq-1)&63)) != 0
}
