package check

import (
	"math"
	"slices"
	"time"

	"im-services/internal/imclient"
)

// forever stands for a moment that did not come.
const forever = time.Duration(math.MaxInt64)

type sendKey struct{ client, clientID int64 }

// send is a message that a client tried to send.
type send struct {
	sendKey
	key     convKey
	to      int64
	text    string
	invoke  time.Duration // the first time
	done    time.Duration // of the acknowledgement or refusal; forever if none
	acked   bool
	refused bool
	resent  bool
	conn    int           // on which it was acknowledged
	posted  int           // the connection when it was first tried
	out     time.Duration // when that was: some wait for their turn
	retries []int         // the connections on which it was sent again
	anew    bool          // tried again by a new life of the client, or after HTTP
	turned  int           // the connection on which it was refused
	order   int           // among its client's first attempts

	id, conv, seq int64
	code          int
}

// place is where a message stands.
type place struct{ conv, seq int64 }

// message is a stored message.
type message struct {
	place
	id, from, clientID int64
	text               string
}

// span is a client's connection.
type span struct {
	conn       int
	begin, end time.Duration
	gateway    int // 0: it is not known
}

// stay is a membership, or a friendship: it began between inInvoke and inOK and
// ended between outInvoke and outOK.
type stay struct{ inInvoke, inOK, outInvoke, outOK time.Duration }

type member struct{ group, user int64 }

// index is a history, sorted for judging.
type index struct {
	events []Event
	sends  map[sendKey]*send
	order  []*send // in the order of their first attempts
	keys   map[int64]convKey
	truth  map[place]*message
	convs  map[int64][]*message // ascending
	fromDB bool
	read   map[int64]bool // clients that read everything in the end

	spans   map[int64][]span
	dialled map[int64]int  // the gateway that a client connects to
	reached map[string]int // the gateway at an address
	crowd   map[int64]bool // clients of an overload
	stays   map[member][]stay
	friends map[convKey][]stay
	faults  []Window
	phases  []Phase
	slow    map[int64]string // who reads little, or floods, by kind
	pushed  []pushed         // by judgeLiveness
	ways    map[int]way      // by way
	lags    []*Event         // by lagBetween
	slack   bool             // the machine had no processor time to spare
	end     time.Duration
	quietAt time.Duration // when everything was healed and settled, forever if never
}

func newIndex(events []Event) *index {
	x := &index{
		events: events, sends: map[sendKey]*send{}, keys: map[int64]convKey{}, truth: map[place]*message{},
		convs: map[int64][]*message{}, read: map[int64]bool{}, spans: map[int64][]span{},
		stays: map[member][]stay{}, friends: map[convKey][]stay{}, quietAt: forever,
		slow: map[int64]string{}, dialled: map[int64]int{}, reached: map[string]int{}, crowd: map[int64]bool{},
		ways: map[int]way{},
	}
	for i := range events {
		x.take(&events[i])
	}
	for _, s := range x.spans {
		for i := range s {
			if s[i].end == forever {
				s[i].end = x.end
			}
		}
	}
	x.buildTruth()
	return x
}

func (x *index) take(e *Event) {
	x.end = max(x.end, e.T)
	switch e.Op {
	case imclient.OpSend:
		x.takeSend(e)
	case imclient.OpSent:
		if s := x.sends[sendKey{e.Client, e.ClientID}]; s != nil {
			s.posted, s.out = e.Conn, e.T
		}
	case imclient.OpResend:
		if s := x.sends[sendKey{e.Client, e.ClientID}]; s != nil {
			s.resent = true
			s.retries = append(s.retries, e.Conn)
		}
	case imclient.OpConnect:
		x.takeConnect(e)
	case OpFriend, OpUnfriend:
		k := keyOf(imclient.Private, e.Client, e.To)
		x.friends[k] = change(x.friends[k], e, e.Op == OpFriend)
	case OpJoin, OpLeave:
		k := member{e.Conversation, e.To}
		x.stays[k] = change(x.stays[k], e, e.Op == OpJoin)
	case OpReadDone:
		x.read[e.Client] = e.Type == imclient.OK
	case OpRow:
		x.fromDB = true
	case OpSlow:
		x.slow[e.Client] = e.Text
	case OpCrowd:
		x.crowd[e.Client] = true
	case OpReached:
		x.reached[e.Text] = e.Conn
	case OpFault:
		x.takeFault(e)
	case OpPhase:
		x.phases = append(x.phases, Phase{e.Text, e.T})
		if e.Text == PhaseRead {
			x.quietAt = e.T
		}
	}
}

func (x *index) takeSend(e *Event) {
	k := sendKey{e.Client, e.ClientID}
	s := x.sends[k]
	if s == nil {
		if e.Type != imclient.Invoke {
			return // an answer to nothing; the judge of repeats sees it
		}
		s = &send{sendKey: k, key: keyOf(e.Channel, e.Client, e.To), to: e.To, text: e.Text, invoke: e.T, done: forever, posted: e.Conn, out: e.T, order: len(x.order)}
		x.sends[k] = s
		x.order = append(x.order, s)
		return
	}
	switch e.Type {
	case imclient.Invoke: // a new life of the client tries again
		s.resent, s.anew = true, true
	case imclient.OK:
		if !s.acked {
			s.acked, s.done, s.conn, s.id, s.conv, s.seq = true, e.T, e.Conn, e.ID, e.Conversation, e.Seq
			x.keys[e.Conversation] = s.key
		}
	case imclient.Fail:
		if !s.acked {
			s.refused, s.code, s.turned = true, e.Code, e.Conn
			s.done = min(s.done, e.T)
		}
	}
}

func (x *index) takeConnect(e *Event) {
	spans := x.spans[e.Client]
	switch e.Type {
	case imclient.Invoke:
		x.dialled[e.Client] = x.reached[e.Text]
	case imclient.OK:
		x.spans[e.Client] = append(spans, span{conn: e.Conn, begin: e.T, end: forever, gateway: x.dialled[e.Client]})
	case imclient.Info:
		for i := len(spans) - 1; i >= 0; i-- {
			if spans[i].conn == e.Conn {
				spans[i].end = e.T
				break
			}
		}
	}
}

// change keeps account of something that begins and ends in turn.
func change(list []stay, e *Event, begins bool) []stay {
	last := len(list) - 1
	switch {
	case begins && e.Type == imclient.Invoke:
		return append(list, stay{e.T, forever, forever, forever})
	case last < 0:
	case begins && e.Type == imclient.OK:
		list[last].inOK = e.T
	case !begins && e.Type == imclient.Invoke && list[last].outInvoke == forever:
		list[last].outInvoke = e.T
	case !begins && e.Type == imclient.OK:
		list[last].outOK = e.T
	}
	return list
}

func (x *index) takeFault(e *Event) {
	if e.Type == imclient.Invoke {
		x.faults = append(x.faults, Window{Number: e.Conn, Target: e.Text, Kind: e.Reason, Begin: e.T, End: forever})
		return
	}
	for i := len(x.faults) - 1; i >= 0; i-- {
		if x.faults[i].Number == e.Conn {
			x.faults[i].End = e.T
			return
		}
	}
}

// buildTruth says what is stored: what the database holds, or where that could
// not be read, everything anybody read in the end.
func (x *index) buildTruth() {
	want := OpRead
	if x.fromDB {
		want = OpRow
	}
	for i := range x.events {
		e := &x.events[i]
		if e.Op != want {
			continue
		}
		p := place{e.Conversation, e.Seq}
		if x.truth[p] != nil {
			continue
		}
		m := &message{place: p, id: e.ID, from: e.From, clientID: e.ClientID, text: e.Text}
		x.truth[p] = m
		x.convs[p.conv] = append(x.convs[p.conv], m)
	}
	for _, list := range x.convs {
		slices.SortFunc(list, func(a, b *message) int { return int(a.seq - b.seq) })
	}
}

// mustHave reports whether user must be able to read s, which was acknowledged:
// he belonged to the conversation all the time it was on its way, and has not
// left and come back since.
func (x *index) mustHave(user int64, s *send) bool {
	if s.key.channel != imclient.Group {
		return user == s.key.a || user == s.key.b
	}
	list := x.stays[member{s.key.a, user}]
	if len(list) == 0 {
		return false
	}
	last := list[len(list)-1]
	return last.inOK <= s.invoke && s.done <= last.outInvoke
}

// lingering is how long an attempt whose connection is gone may still take
// effect at most, on a machine without processor time to spare, where it waits in
// every process on its way. Gateway and logic give it up after 5 and 3 seconds.
const lingering = 10 * time.Second

// lingerTimes is how often an attempt waits for a processor on its way through
// clients, gateway, logic and database.
const lingerTimes = 20

// lingers is how long an attempt of from..to may have been on its way.
func (x *index) lingers(from, to time.Duration) time.Duration {
	if !x.slack {
		return 0
	}
	return min(lingering, lingerTimes*x.lagBetween(from, to))
}

// settled reports whether the refusal of s is the answer to the last attempt, so
// that it says that s is not stored, and will not be at m. With two attempts on the
// connection that brought it, it may answer the first while the second is on its
// way; and what was sent on a connection before may linger.
func (x *index) settled(s *send, m *message) bool {
	if !s.refused || s.acked || s.anew {
		return false
	}
	if !s.resent {
		return true
	}
	at := max(s.done, x.storedAfter(m))
	gone := at - x.lingers(s.out, at)
	there := 0
	for _, conn := range s.retries {
		if conn == s.turned {
			there++
		} else if !x.goneBefore(s.client, conn, gone) {
			return false
		}
	}
	return there == 1 && s.posted != s.turned && x.stood(s.client, s.out).conn == s.posted && x.goneBefore(s.client, s.posted, gone)
}

// storedAfter is a time after which m was stored: when one of those before it was
// first sent.
func (x *index) storedAfter(m *message) time.Duration {
	list := x.convs[m.conv]
	at, _ := slices.BinarySearchFunc(list, m.seq, func(m *message, seq int64) int { return int(m.seq - seq) })
	var after time.Duration
	for _, before := range list[:at] {
		if s := x.sends[sendKey{before.from, before.clientID}]; s != nil {
			after = max(after, s.invoke)
		}
	}
	return after
}

// goneBefore reports whether a connection had ended at t.
func (x *index) goneBefore(client int64, conn int, t time.Duration) bool {
	for _, s := range x.spans[client] {
		if s.conn == conn {
			return s.end <= t
		}
	}
	return true // it never stood
}

// mayHave reports whether user may have seen what was sent to key and stored
// between from and to.
func (x *index) mayHave(user int64, key convKey, from, to time.Duration) bool {
	if key.channel != imclient.Group {
		return user == key.a || user == key.b
	}
	for _, m := range x.stays[member{key.a, user}] {
		if m.inInvoke <= to && from <= m.outOK {
			return true
		}
	}
	return false
}

// forbidden reports whether list was over for certain all the time from began to
// done: an end had been confirmed before, and no new beginning asked for until
// then. What was long on its way may arrive in a new stay.
func forbidden(list []stay, began, done time.Duration) bool {
	for i, m := range list {
		next := forever
		if i+1 < len(list) {
			next = list[i+1].inInvoke
		}
		if m.outOK < began && done <= next {
			return true
		}
	}
	return false
}

// permitted reports whether list held for certain all the time from began to done:
// its beginning had been confirmed before, and no end asked for until then.
func permitted(list []stay, began, done time.Duration) bool {
	return slices.ContainsFunc(list, func(m stay) bool { return m.inOK <= began && done <= m.outInvoke })
}

// recipients are the users to whom s is pushed: of a group message, its sender too.
func (x *index) recipients(s *send) []int64 {
	if s.key.channel != imclient.Group {
		if s.key.a == s.client {
			return []int64{s.key.b}
		}
		return []int64{s.key.a}
	}
	var out []int64
	for m := range x.stays {
		if m.group == s.key.a && x.mustHave(m.user, s) {
			out = append(out, m.user)
		}
	}
	return out
}
