package imclient

import "time"

// sweepEvery is how often unanswered messages are looked for.
const sweepEvery = 250 * time.Millisecond

// write is the one goroutine that writes chat: first what waits, in order, then
// what is posted; what stays unanswered again.
func (c *Client) write() {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	var buf []byte
	lastBeat := time.Now()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.wake:
		case now := <-sweep.C:
			buf = c.sweep(buf, now)
			if c.cfg.Heartbeat > 0 && now.Sub(lastBeat) >= c.cfg.Heartbeat {
				lastBeat = now
				buf = c.beat(buf)
			}
		}
		buf = c.flush(buf)
	}
}

// flush writes what this connection has not sent yet.
func (c *Client) flush(buf []byte) []byte {
	for {
		c.mu.Lock()
		sock, p := c.sock, c.next
		if sock == nil || p == nil || c.flying >= c.cfg.Window {
			c.mu.Unlock()
			return buf
		}
		c.next = p.next
		buf = c.frameLocked(buf, p, time.Now())
		c.mu.Unlock()
		if sock.Write(buf) != nil {
			sock.Cut() // the reader notices and reconnects
			return buf
		}
	}
}

// frameLocked makes p's frame and marks it as sent.
func (c *Client) frameLocked(buf []byte, p *pending, now time.Time) []byte {
	op := ""
	switch {
	case p.sent:
		c.stats.Resent++
		op = OpResend
	case p.postedOn != c.conn:
		op = OpSent
	}
	if op != "" {
		c.record(&Event{T: Now(), Conn: c.conn, Type: Invoke, Op: op, ClientID: p.msg.ClientID, Channel: max(p.msg.Channel, Private), To: p.msg.To})
	}
	if p.on != c.conn {
		p.on, p.ignored, p.refused = c.conn, 0, 0
		c.flying++
	}
	p.sent, p.sentAt, p.retryAt = true, now, time.Time{}
	return AppendChat(buf[:0], c.cfg.User.ID, &p.msg)
}

// sweep sends again what was not answered in time, or may now be tried again.
func (c *Client) sweep(buf []byte, now time.Time) []byte {
	c.mu.Lock()
	sock := c.sock
	var due []*pending
	for p := c.head; p != nil && p != c.next && sock != nil; p = p.next {
		switch {
		case p.retryAt.IsZero() && now.Sub(p.sentAt) >= p.patience(c.cfg.AckTimeout):
			p.ignored++
			due = append(due, p)
		case !p.retryAt.IsZero() && !now.Before(p.retryAt):
			due = append(due, p)
		}
	}
	c.mu.Unlock()
	for _, p := range due {
		c.mu.Lock()
		settled := c.pending[p.msg.ClientID] != p
		if !settled {
			buf = c.frameLocked(buf, p, now)
		}
		c.mu.Unlock()
		if !settled && sock.Write(buf) != nil {
			sock.Cut()
			break
		}
	}
	return buf
}

// beat writes a heartbeat, and receipts if this client gives them.
func (c *Client) beat(buf []byte) []byte {
	c.mu.Lock()
	sock := c.sock
	var receipts []Cursor
	if c.cfg.Receipts {
		for conv, s := range c.seen {
			if s.floor > c.receipted[conv] {
				receipts = append(receipts, Cursor{conv, s.floor})
				c.receipted[conv] = s.floor
			}
		}
	}
	c.mu.Unlock()
	if sock == nil {
		return buf
	}
	for _, r := range receipts {
		buf = appendReceipt(buf[:0], r.Conversation, r.Seq)
		if sock.Write(buf) != nil {
			sock.Cut()
			return buf
		}
	}
	buf = append(buf[:0], `{"msg_code":1004,"message":"ping"}`...)
	if sock.Write(buf) != nil {
		sock.Cut()
	}
	return buf
}
