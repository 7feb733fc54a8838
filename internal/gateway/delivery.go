package gateway

import (
	"time"

	"im-services/internal/im"
	"im-services/internal/seeded"
	"im-services/internal/wire"
)

// Bounds of what a connection remembers while it delivers.
const (
	maxHeld       = 256  // pushes that came too early, or during a sync; their frames: Config.OutboxBytes
	maxAhead      = 64   // ranges of the push counter that were written ahead
	maxPositions  = 4096 // conversations with a known position
	firstProofGap = 100 * time.Millisecond
	maxUnproven   = 512  // entries before they are merged
	maxOwn        = 256  // runs of own messages acknowledged ahead of the position
	maxRecalled   = 8192 // messages taken back that this process remembers
)

// message is one stored message with its frame, shared by all connections it
// goes to.
type message struct {
	conv           im.ConversationID
	seq            im.Seq
	id             im.MessageID
	clientID       im.ClientMsgID
	sender         im.UserID
	to             int64
	kind           im.ChannelKind
	senderPlatform im.Platform
	contiguous     bool
	frame          []byte
}

// phase says what a connection does with pushes.
type phase uint8

const (
	// phaseSyncing: a sync is running or wanted; pushes wait for its end.
	phaseSyncing phase = iota
	// phaseFenced: this process was asleep; pushes wait until logic has said
	// whether the connection is still where it believes to be.
	phaseFenced
	// phaseLive: pushes are written as they come.
	phaseLive
)

// pushed is a run of messages of one user's push counter: lo..hi, or 0,0 when the
// counter is unknown.
type pushed struct {
	lo, hi im.PV
	epoch  string // the counter's life
	msgs   []*message
	size   int           // of the frames
	at     time.Duration // when it came
}

// pvRange is a part of the push counter that was written before what precedes it.
type pvRange struct {
	lo, hi im.PV
	at     time.Duration
}

// delivery is a connection's place in the user's pushes. Guarded by conn.mu.
type delivery struct {
	phase  phase
	again  bool // sync once more after the running one
	joined bool // logic knows of the connection
	pv     im.PV
	epoch  string // the life of pv
	// positions holds the seq written last, of conversations that were active
	// on this connection.
	positions map[im.ConversationID]im.Seq
	// own holds the connection's own private messages whose acks overtook the
	// pushes before them, or came where no position is known yet; the position passes
	// over them when it gets there.
	own       []ownRun
	held      []pushed
	heldBytes int // sum of their sizes
	ahead     []pvRange
	timer     bool // a hold timer is running

	// wantPV is the counter logic had at the last watermark.
	wantPV im.PV

	// What was written and not proved to be received; what the outstanding
	// proof will prove. A proof is a ping with its number.
	unproven, proving []place
	proof             uint64
	proofAt           time.Duration
	proofGap          time.Duration // how long after proofAt the next may come
	proofDue          bool          // it is in proofs
}

// place is a position in a conversation.
type place struct {
	conv im.ConversationID
	seq  im.Seq
}

// ownRun are own messages with seqs that follow each other.
type ownRun struct {
	conv        im.ConversationID
	first, last im.Seq
}

// deliver takes a push: msgs are the last ones counted by pv, a counter of epoch.
// It never blocks.
func (c *conn) deliver(epoch string, pv im.PV, msgs []*message, now time.Duration) {
	if len(msgs) == 0 {
		return
	}
	p := pushed{msgs: msgs, at: now, epoch: epoch}
	for _, m := range msgs {
		p.size += len(m.frame)
	}
	if pv != 0 {
		p.lo, p.hi = pv-im.PV(len(msgs))+1, pv
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	if seeded.On(seeded.NSQOnly) {
		for _, m := range msgs {
			c.writeLocked(m)
		}
		return
	}
	if c.phase != phaseLive {
		c.holdLocked(p)
		return
	}
	if pv != 0 && epoch != c.epoch && !seeded.On(seeded.EpochIgnored) {
		// The counters were restarted: ours mean nothing any more.
		c.phase = phaseFenced
		c.holdLocked(p)
		c.s.marks.assert(c)
		return
	}
	if !c.applyLocked(&p) {
		if m := p.msgs[0]; !m.contiguous && !c.knowsLocked(m.conv) && p.lo <= c.pv+1 {
			// Nothing is on its way that could tell what came before: ask at once.
			c.syncLocked("unsure")
			return
		}
		c.holdLocked(p)
	} else if len(c.held) > 0 {
		c.retryLocked()
	}
	c.watchLocked()
}

// holdLocked keeps a push for later. When too much is held it is all dropped:
// the sync that follows reads it from the store. Frames that other connections
// share count in full: this one may be the last to let go of them.
func (c *conn) holdLocked(p pushed) {
	c.s.m.held.Inc()
	if len(c.held) >= maxHeld || c.heldBytes+p.size > c.s.cfg.OutboxBytes {
		c.dropHeldLocked()
		if c.phase == phaseLive {
			c.syncLocked("held")
		} else {
			c.again = true
		}
		return
	}
	c.held = append(c.held, p)
	c.heldBytes += p.size
}

func (c *conn) dropHeldLocked() { c.held, c.heldBytes = nil, 0 }

// applyLocked writes what can be written of p, in order, and reports whether
// nothing is left of it.
func (c *conn) applyLocked(p *pushed) bool {
	if p.epoch != c.epoch && !seeded.On(seeded.EpochIgnored) { // it was held, and the counter restarted meanwhile
		p.lo, p.hi = 0, 0
	}
	if p.hi != 0 && p.hi <= c.pv {
		c.s.m.repeats.Inc()
		if !c.stoodLocked(p.msgs) {
			c.syncLocked("unsure")
		}
		return true
	}
	// With an earlier push missing, a conversation whose position is unknown may
	// be missing a message; one whose position fits cannot be. Without a counter
	// nobody knows whether a push is missing.
	whole := p.hi != 0 && p.lo <= c.pv+1
	for len(p.msgs) > 0 {
		m := p.msgs[0]
		at, known := c.positions[m.conv]
		switch {
		case known && m.seq <= at:
			c.s.m.repeats.Inc()
		case known && m.seq == at+1, !known && m.contiguous && (whole || p.hi == 0 && m.seq == 1):
			if !c.hasRoom(len(m.frame)) {
				c.syncLocked("lag")
				return true // the sync brings it
			}
			c.writeLocked(m)
		default:
			return false
		}
		p.msgs = p.msgs[1:]
	}
	if p.hi != 0 {
		c.countLocked(*p)
	}
	return true
}

// stoodLocked reports whether the positions say, too, that msgs were here. If they do
// not, the counter may have gone back: a Redis that comes back as it was some pushes ago
// gives the next ones old numbers until that is noticed.
func (c *conn) stoodLocked(msgs []*message) bool {
	for _, m := range msgs {
		if at, known := c.positions[m.conv]; !known || m.seq > at {
			return false
		}
	}
	return true
}

// countLocked notes that the pushes of p are written.
func (c *conn) countLocked(p pushed) {
	if p.lo > c.pv+1 {
		if len(c.ahead) >= maxAhead {
			c.syncLocked("ahead")
			return
		}
		c.ahead = append(c.ahead, pvRange{p.lo, p.hi, p.at})
		return
	}
	c.pv = max(c.pv, p.hi)
	for progress := true; progress; {
		progress = false
		for i, r := range c.ahead {
			if r.lo <= c.pv+1 {
				c.pv = max(c.pv, r.hi)
				c.ahead = append(c.ahead[:i], c.ahead[i+1:]...)
				progress = true
				break
			}
		}
	}
}

// retryLocked tries the held pushes again, until none of them moves.
func (c *conn) retryLocked() {
	if c.again { // too much was held behind a fence: it was dropped
		c.syncLocked("held")
		return
	}
	for progress := true; progress && c.phase == phaseLive; {
		progress = false
		for i := 0; i < len(c.held) && c.phase == phaseLive; {
			left := len(c.held[i].msgs)
			if c.applyLocked(&c.held[i]) {
				if c.phase != phaseLive { // a sync began and took what was held
					return
				}
				c.heldBytes -= c.held[i].size
				c.held = append(c.held[:i], c.held[i+1:]...)
				progress = true
				continue
			}
			progress = progress || len(c.held[i].msgs) < left
			i++
		}
	}
	if len(c.held) == 0 {
		c.dropHeldLocked()
	}
}

// watchLocked makes sure that somebody looks again when something is missing.
func (c *conn) watchLocked() {
	if c.timer || c.phase != phaseLive || len(c.held) == 0 && len(c.ahead) == 0 {
		return
	}
	c.timer = true
	time.AfterFunc(c.s.cfg.Hold, c.heldTooLong)
}

// heldTooLong syncs if what was missing when the timer started still is.
func (c *conn) heldTooLong() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = false
	if c.stopped || c.phase != phaseLive || len(c.held) == 0 && len(c.ahead) == 0 {
		return
	}
	oldest := c.s.now()
	for i := range c.held {
		oldest = min(oldest, c.held[i].at)
	}
	for i := range c.ahead {
		oldest = min(oldest, c.ahead[i].at)
	}
	if wait := c.s.cfg.Hold - (c.s.now() - oldest); wait > 0 {
		c.timer = true
		time.AfterFunc(wait, c.heldTooLong)
		return
	}
	c.syncLocked("gap")
}

// writeLocked queues a message's frame and moves the position. The sender of a
// private message does not get it back on the platform it was sent from: the client
// shows it already. Nor does he on the web, where it would appear twice; what he sent
// from elsewhere is passed over there, and said to be.
func (c *conn) writeLocked(m *message) {
	c.setPositionLocked(m.conv, m.seq)
	if m.kind == im.Private && m.sender == c.user {
		if c.platform == m.senderPlatform {
			return
		}
		if c.platform == im.PlatformWeb {
			_ = c.send(seal(wire.AppendSyncNeeded(newFrame(64), m.conv, m.seq-1), opText))
			return
		}
	}
	frame := m.frame
	if c.s.recalled.Contains(m.id) { // it was read, or held, before it was taken back
		frame = m.placeFrame()
	}
	if c.send(frame) != nil {
		return
	}
	c.s.m.written.Inc()
	if seeded.On(seeded.CursorOnWrite) {
		c.s.reports.ack(receipt{user: c.user, platform: c.platform, conv: m.conv, seq: m.seq})
	}
	if n := len(c.unproven); n > 0 && c.unproven[n-1].conv == m.conv {
		c.unproven[n-1].seq = m.seq
	} else {
		if n >= maxUnproven && n == cap(c.unproven) { // whenever it would grow, so not for each push
			c.unproven = merge(c.unproven)
		}
		c.unproven = append(c.unproven, place{m.conv, m.seq})
	}
	c.proveLocked()
}

func (c *conn) knowsLocked(conv im.ConversationID) bool {
	_, known := c.positions[conv]
	return known
}

func (c *conn) setPositionLocked(conv im.ConversationID, seq im.Seq) {
	if c.positions == nil {
		c.positions = map[im.ConversationID]im.Seq{}
	} else if len(c.positions) >= maxPositions {
		if _, known := c.positions[conv]; !known {
			for other := range c.positions { // any: it will be learnt again
				delete(c.positions, other)
				break
			}
		}
	}
	c.positions[conv] = seq
	if len(c.own) > 0 {
		c.passOwnLocked(conv)
	}
}

// sentLocked notes the place of the connection's own private message, which it
// will not get as a push that it writes. The ack may be faster than the pushes
// of messages before it: then the place is kept until they are here.
func (c *conn) sentLocked(conv im.ConversationID, seq im.Seq) {
	at := c.positions[conv] // 0 where it is not known
	switch {
	case seq <= at:
		return
	case seq > at+1:
		c.keepOwnLocked(conv, seq)
		return
	}
	c.setPositionLocked(conv, seq)
	if len(c.held) > 0 && c.phase == phaseLive {
		c.retryLocked()
		c.watchLocked()
	}
}

// keepOwnLocked keeps the place of an own message until the position gets there.
func (c *conn) keepOwnLocked(conv im.ConversationID, seq im.Seq) {
	for i := range c.own {
		if r := &c.own[i]; r.conv == conv && r.last+1 == seq {
			r.last = seq
			return
		}
	}
	if len(c.own) >= maxOwn { // the oldest is found by a sync
		c.own = append(c.own[:0], c.own[1:]...)
	}
	c.own = append(c.own, ownRun{conv, seq, seq})
}

// passOwnLocked moves a position past the own messages that follow it.
func (c *conn) passOwnLocked(conv im.ConversationID) {
	for i := 0; i < len(c.own); i++ {
		if c.own[i].conv != conv || c.own[i].first > c.positions[conv]+1 {
			continue
		}
		c.positions[conv] = max(c.positions[conv], c.own[i].last)
		c.own = append(c.own[:i], c.own[i+1:]...)
		i = -1 // another of them may follow now
	}
	if len(c.own) == 0 {
		c.own = nil
	}
}

// proveLocked asks for proof of receipt: a ping after the frames, whose pong
// shows that they arrived. One at a time, and not too often.
func (c *conn) proveLocked() {
	if len(c.proving) > 0 || len(c.unproven) == 0 {
		return
	}
	now := c.s.now()
	if c.proof > 0 && now-c.proofAt < c.proofGap {
		if !c.proofDue {
			c.proofDue = true
			c.s.proofs.add(c, c.proofAt+c.proofGap)
		}
		return
	}
	// Who is sent something all the time proves it ever more seldom; after a pause
	// he is asked at once.
	if now-c.proofAt < 2*c.proofGap {
		c.proofGap = min(2*c.proofGap, c.s.cfg.ProofInterval)
	} else {
		c.proofGap = min(firstProofGap, c.s.cfg.ProofInterval)
	}
	c.proof++
	if c.send(pingFrame(c.proof)) != nil {
		return
	}
	c.proofAt = now
	c.proving, c.unproven = c.unproven, nil
	if seeded.On(seeded.NoPongProof) {
		for _, p := range c.proving {
			c.s.reports.ack(receipt{user: c.user, platform: c.platform, conv: p.conv, seq: p.seq})
		}
	}
}

// proved takes a pong.
func (c *conn) proved(proof uint64) {
	c.mu.Lock()
	if proof != c.proof || len(c.proving) == 0 {
		c.mu.Unlock()
		return
	}
	got := c.proving
	c.proving = nil
	c.proveLocked()
	c.mu.Unlock()
	for _, p := range got {
		c.s.reports.ack(receipt{user: c.user, platform: c.platform, conv: p.conv, seq: p.seq})
	}
}

// merge keeps the highest place of each conversation.
func merge(in []place) []place {
	highest := make(map[im.ConversationID]im.Seq, len(in))
	for _, p := range in {
		highest[p.conv] = max(highest[p.conv], p.seq)
	}
	out := make([]place, 0, len(highest))
	for conv, seq := range highest {
		out = append(out, place{conv, seq})
	}
	return out
}

func (c *conn) dropDeliveryLocked() {
	c.dropHeldLocked()
	c.ahead, c.positions, c.own, c.unproven = nil, nil, nil, nil
}

// news writes who has come and gone. It may be lost, and while a client is behind it is:
// he can ask.
func (c *conn) news(frame []byte) { c.sendIfRoom(frame, c.s.cfg.OutboxBytes/2) }

// call writes that somebody calls. It means nothing later, so nobody is closed for it.
func (c *conn) call(frame []byte) { c.sendIfRoom(frame, c.s.cfg.OutboxBytes) }

// event writes what is not in the store of messages, about friends and new groups. Who
// has no room for it is closed, and asks when he comes again.
func (c *conn) event(frame []byte) { _ = c.send(frame) }

// recall writes that a message was taken back. It is not lost: who cannot take it
// is closed and reads the store. It comes after the message if that is being
// written, else the message does not come, see writeLocked.
func (c *conn) recall(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.send(frame)
}

// displace tells the client that a newer connection took its place, and closes.
func (c *conn) displace(ip string) {
	text := c.s.describe("displaced").Text
	c.closeWith(wire.CloseReplaced, seal(wire.AppendDisplaced(newFrame(96), text, ip), opText))
}
