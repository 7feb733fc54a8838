package bench

import (
	"sync/atomic"
	"time"

	"im-services/internal/bench/lean"
)

// The key of a message, its msg_client_id, is what tells a run everything:
//
//	stamp (28 bits): the run, seconds since 2026    slot (3): which of its sender's flows
//	number (22): counted from 0
const (
	numberBits = 22
	slotBits   = 3
	maxNumber  = 1<<numberBits - 1
	maxSlot    = 1<<slotBits - 1
)

var stampEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newStamp(now time.Time) int64 { return int64(now.Sub(stampEpoch)/time.Second) & (1<<28 - 1) }

func makeKey(stamp int64, slot, number int) int64 {
	return (stamp<<slotBits|int64(slot))<<numberBits | int64(number)
}

func splitKey(key int64) (stamp int64, slot, number int) {
	return key >> (numberBits + slotBits), int(key >> numberBits & maxSlot), int(key & maxNumber)
}

// States of an entry's seq besides a real one.
const (
	seqNone    = 0
	seqRefused = -1
	seqUnknown = -2 // acknowledged or received without a seq
)

// entry is one message of a flow.
type entry struct {
	sentAt atomic.Int64 // when it was sent or due, nanoseconds since the run's start
	left   atomic.Int32 // acks and deliveries still to come before it is complete
	seq    atomic.Int32 // from the ack, or one of the states
	resent atomic.Bool  // more than one attempt: a refusal speaks of the last alone
}

const chunkSize = 1024

type chunk [chunkSize]entry

// flow is what one user sends into one conversation, in order.
type flow struct {
	run    *run
	from   *client
	slot   int
	to     int64
	kind   int64
	window int // how many may be incomplete at once in a closed loop; 0: not a closed loop
	// untilDelivered: a message is complete when acknowledged and delivered to
	// all; otherwise when acknowledged.
	untilDelivered bool
	limit          int // how many it sends at most; 0: no limit
	receivers      []*client

	chunks atomic.Pointer[[]*chunk]
	// Guarded by from.mu:
	sent      int
	owed      int // completions that found no connection to send the next on
	firstOpen int // all before it are settled
	body      []byte

	resentAt time.Duration // watchdog only
}

// at returns message n, which has been sent.
func (f *flow) at(n int) *entry {
	chunks := *f.chunks.Load()
	return &chunks[n/chunkSize][n%chunkSize]
}

// reserveLocked makes room for message n. The caller holds from.mu.
func (f *flow) reserveLocked(n int) *entry {
	var chunks []*chunk
	if p := f.chunks.Load(); p != nil {
		chunks = *p
	}
	if n/chunkSize >= len(chunks) {
		// Readers may hold the old slice: it stays as it is.
		grown := append(chunks[:len(chunks):len(chunks)], new(chunk))
		f.chunks.Store(&grown)
		chunks = grown
	}
	return &chunks[n/chunkSize][n%chunkSize]
}

const hexDigits = "0123456789abcdef"

// keyDigits is how many hexadecimal digits a body begins with: its key.
const keyDigits = 14

func putKey(b []byte, key int64) {
	for i := keyDigits - 1; i >= 0; i-- {
		b[i] = hexDigits[key&15]
		key >>= 4
	}
}

func bodyHasKey(b []byte, key int64) bool {
	if len(b) < keyDigits {
		return false
	}
	for i := keyDigits - 1; i >= 0; i-- {
		if b[i] != hexDigits[key&15] {
			return false
		}
		key >>= 4
	}
	return true
}

// send sends the next message, due at the given time since the run's start;
// due < 0: now. It reports false if there is no connection.
func (f *flow) send(due time.Duration) bool {
	c := f.from
	c.mu.Lock()
	defer c.mu.Unlock()
	return f.sendLocked(due)
}

func (f *flow) sendLocked(due time.Duration) bool {
	c := f.from
	if c.conn == nil || f.sent > maxNumber {
		return false
	}
	if f.limit > 0 && f.sent >= f.limit {
		return true // done
	}
	n := f.sent
	e := f.reserveLocked(n)
	left := int32(1)
	if f.untilDelivered {
		left += int32(len(f.receivers)) //nolint:gosec // few
	}
	e.left.Store(left)
	if due < 0 {
		due = f.run.now()
	}
	e.sentAt.Store(int64(due))
	f.sent++
	f.run.phase.Load().sent.Add(1)
	f.writeLocked(n)
	return true
}

// writeLocked writes message n. A failure shows in the reader, which will see
// to it that the message is sent again.
func (f *flow) writeLocked(n int) {
	key := makeKey(f.run.stamp, f.slot, n)
	putKey(f.body, key)
	conn := f.from.conn
	conn.Lock()
	err := conn.SendLocked(&lean.Chat{ClientMsgID: key, From: f.from.user.ID, To: f.to, Kind: f.kind, Body: f.body})
	conn.Unlock()
	if err != nil {
		_ = conn.Close()
	}
}

// complete is told of each ack and delivery of message e. The last one lets a
// closed loop go on.
func (f *flow) complete(e *entry) {
	if e.left.Add(-1) == 0 {
		f.run.phase.Load().completed.Add(1)
		f.again()
	}
}

// again sends the next message of a closed loop.
func (f *flow) again() {
	if f.window == 0 || f.run.stopped.Load() {
		return
	}
	c := f.from
	c.mu.Lock()
	defer c.mu.Unlock()
	if !f.sendLocked(-1) {
		f.owed++
	}
}

// settled reports whether message n has its answer.
func (f *flow) settled(n int) bool { return f.at(n).seq.Load() != seqNone }

// resendLocked sends again, in order, what has no answer. Callers hold from.mu.
func (f *flow) resendLocked() (n int) {
	if f.from.conn == nil {
		return 0
	}
	for i := f.firstOpen; i < f.sent; i++ {
		if !f.settled(i) {
			f.at(i).resent.Store(true)
			f.writeLocked(i)
			n++
		}
	}
	return n
}

// open returns how many messages have no answer and, if any, when the oldest
// was sent.
func (f *flow) open() (n int, oldest time.Duration) {
	f.from.mu.Lock()
	defer f.from.mu.Unlock()
	for f.firstOpen < f.sent && f.settled(f.firstOpen) {
		f.firstOpen++
	}
	if f.firstOpen == f.sent {
		return 0, 0
	}
	for i := f.firstOpen; i < f.sent; i++ {
		if !f.settled(i) {
			n++
		}
	}
	return n, time.Duration(f.at(f.firstOpen).sentAt.Load())
}
