package e2e

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// loadOptions say who talks to whom.
type loadOptions struct {
	pairs int // pairs of friends who write to each other
	group int // members of one group in which all write; 0: none
	rate  int // messages per second, all together

	gateway int // where all connect first; 0: evenly to both
	pending int // how many may be unsettled before a person waits; 0: the client's default
}

// load is people talking, and the memory of what they were told: enough to say
// afterwards whether the system kept its word.
type load struct {
	t       testing.TB
	people  []*person
	threads []*thread
	rate    int
	pending int
	counts  []int // posted so far, by writer
}

// person is a user with a client that reconnects and sends again.
type person struct {
	*someone
	client *imclient.Client
	silent bool // only reads

	mu    sync.Mutex
	shown map[int64][]row         // guarded by mu; per conversation, in the order shown
	acked map[int64]ackedSend     // guarded by mu; by client message id
	posts map[int64]*post         // guarded by mu
	again map[int64]bool          // guarded by mu; client message ids sent more than once
	at    map[int64]time.Duration // guarded by mu; when each message id was shown
	lost  []imclient.Settled      // guarded by mu; refused or unknown
}

type post struct {
	thread *thread
	n      int // in the order this person posted to the thread
	text   string
}

type ackedSend struct {
	imclient.Settled
	post *post
}

type row struct {
	seq, id, from, clientID int64
	kind                    int
	text                    string
}

// notice is the type of messages that the system writes into a group.
const notice = 6

// thread is a conversation.
type thread struct {
	channel int
	group   int64
	people  []*person
}

// to is whom p names when writing to the thread.
func (th *thread) to(p *person) int64 {
	if th.channel == imclient.Group {
		return th.group
	}
	if th.people[0] == p {
		return th.people[1].ID
	}
	return th.people[0].ID
}

// newLoad registers people, connects them and waits until all are there.
func newLoad(t testing.TB, o loadOptions) *load {
	t.Helper()
	l := &load{t: t, rate: o.rate, pending: o.pending}
	at := func(n int) int { return cmp.Or(o.gateway, n) }
	for range o.pairs {
		a, b := friends(t)
		l.thread(imclient.Private, 0, l.join(a, at(1)), l.join(b, at(2)))
	}
	if o.group > 0 {
		var members []*person
		var ids []int64
		for i := range o.group {
			u := newUser(t, 1+i%2)
			if i > 0 {
				befriend(t, members[0].someone, u)
				ids = append(ids, u.ID)
			}
			members = append(members, l.join(u, at(1+i%2)))
		}
		group, err := members[0].api.CreateGroup(soon(t), "load", ids...)
		require.NoError(t, err)
		l.thread(imclient.Group, group, members...)
	}
	l.connected()
	return l
}

// connected waits until everybody is there.
func (l *load) connected() {
	l.t.Helper()
	ctx := soon(l.t)
	for _, p := range l.people {
		require.NoError(l.t, p.client.WaitConnected(ctx))
	}
}

func (l *load) thread(channel int, group int64, people ...*person) {
	l.threads = append(l.threads, &thread{channel: channel, group: group, people: people})
}

// join starts a client for u at gateway n; it moves to the other when it fails.
// change, if given, makes it another client than the others have.
func (l *load) join(u *someone, n int, change ...func(*imclient.Config)) *person {
	p := &person{someone: u, shown: map[int64][]row{}, acked: map[int64]ackedSend{}, posts: map[int64]*post{}, again: map[int64]bool{}, at: map[int64]time.Duration{}}
	cfg := imclient.Config{
		User: u.User, Addresses: gateways(n), Heartbeat: time.Second, Silence: 5 * time.Second, AckTimeout: 3 * time.Second,
		BackoffMax: time.Second, MaxPending: l.pending,
		OnMessage: func(f *imclient.Frame, _ bool) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.shown[f.Conversation] = append(p.shown[f.Conversation], row{f.Seq, f.ID, f.From, f.ClientID, f.Type, f.Text()})
			p.at[f.ID] = imclient.Now()
		},
		OnSettled: func(s *imclient.Settled) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if !s.Acked {
				p.lost = append(p.lost, *s)
				return
			}
			p.acked[s.ClientID] = ackedSend{*s, p.posts[s.ClientID]}
		},
	}
	history := l.history(u)
	cfg.Record = func(e *imclient.Event) {
		if e.Op == imclient.OpResend {
			p.mu.Lock()
			p.again[e.ClientID] = true
			p.mu.Unlock()
		}
		if history != nil {
			history.Add(e)
		}
	}
	for _, f := range change {
		f(&cfg)
	}
	p.client = imclient.Start(cfg)
	l.t.Cleanup(p.client.Close)
	l.people = append(l.people, p)
	return p
}

// history keeps what the client saw in a file if IM_E2E_HISTORY names a folder.
func (l *load) history(u *someone) *imclient.History {
	dir := os.Getenv("IM_E2E_HISTORY")
	if dir == "" {
		return nil
	}
	f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%s-%d-%d.jsonl", filepath.Base(l.t.Name()), len(l.people)+1, u.ID))) //nolint:gosec // the developer names the folder
	require.NoError(l.t, err)
	h := imclient.NewHistory(f)
	l.t.Cleanup(func() { _ = h.Close(); _ = f.Close() })
	return h
}

// run makes everybody write for d, at the load's rate all together.
func (l *load) run(d time.Duration) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), d)
	defer cancel()
	l.runUntil(ctx)
}

func (l *load) runUntil(ctx context.Context) {
	l.t.Helper()
	type writer struct {
		p  *person
		th *thread
	}
	var writers []writer
	for _, th := range l.threads {
		for _, p := range th.people {
			if !p.silent {
				writers = append(writers, writer{p, th})
			}
		}
	}
	if l.counts == nil {
		l.counts = make([]int, len(writers))
	}
	begin := time.Now()
	for sent := 0; ctx.Err() == nil; {
		// Open loop: what is due by now is posted, however slow the answers are.
		for due := int(time.Since(begin).Seconds() * float64(l.rate)); sent < due && ctx.Err() == nil; sent++ {
			i := sent % len(writers)
			w := writers[i]
			l.counts[i]++
			if err := w.p.post(ctx, w.th, l.counts[i]); err != nil && ctx.Err() == nil {
				l.t.Errorf("post: %v", err)
				return
			}
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// post writes the n-th message of p to the thread.
func (p *person) post(ctx context.Context, th *thread, n int) error {
	p.mu.Lock()
	id := int64(len(p.posts) + 1)
	text := fmt.Sprintf("%d to %d/%d, number %d", p.ID, th.channel, th.to(p), n)
	p.posts[id] = &post{thread: th, n: n, text: text}
	p.mu.Unlock()
	_, err := p.client.Post(ctx, imclient.Outgoing{ClientID: id, Channel: th.channel, To: th.to(p), Text: text})
	if err != nil {
		p.mu.Lock()
		delete(p.posts, id)
		p.mu.Unlock()
	}
	return err
}

// settle waits until every message is acknowledged and everybody holds all
// acknowledged messages of others, and no longer than a healed system needs.
func (l *load) settle() {
	l.t.Helper()
	const limit = time.Minute // half of it would do on a machine with nothing else to do
	deadline := time.Now().Add(limit)
	for {
		var missing []string
		for _, p := range l.people {
			if n := p.client.Stats().Pending; n > 0 {
				missing = append(missing, fmt.Sprintf("%d has %d unsettled messages", p.ID, n))
			}
		}
		for _, th := range l.threads {
			for _, p := range th.people {
				if want, got := th.owed(p), th.held(p); got < want {
					missing = append(missing, fmt.Sprintf("%d holds %d of %d messages of thread %d/%d", p.ID, got, want, th.channel, th.to(p)))
				}
			}
		}
		if missing == nil {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("not settled after %s: %v", limit, missing)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// owed counts the acknowledged messages of the thread that p must be shown.
func (th *thread) owed(p *person) (n int) {
	for _, q := range th.people {
		if q == p && th.channel == imclient.Private {
			continue
		}
		q.mu.Lock()
		for _, a := range q.acked {
			if a.post.thread == th {
				n++
			}
		}
		q.mu.Unlock()
	}
	return n
}

// held counts the messages of the thread that p was shown, notices aside.
func (th *thread) held(p *person) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conv, rows := range p.shown {
		if conv == th.conversationLocked(p) {
			for _, r := range rows {
				if r.kind != notice {
					n++
				}
			}
		}
	}
	return n
}

// conversationLocked learns the thread's conversation id from what p was told.
func (th *thread) conversationLocked(p *person) int64 {
	if th.channel == imclient.Group {
		return th.group
	}
	for _, a := range p.acked {
		if a.post.thread == th {
			return a.Conversation
		}
	}
	return 0
}

// check judges everything that everybody was told against the stored history.
func (l *load) check() {
	l.t.Helper()
	t := l.t
	for _, p := range l.people {
		st := p.client.Stats()
		require.Zero(t, st.Late, "%d was shown messages out of order", p.ID)
		require.Empty(t, p.lost, "%d had messages refused", p.ID)
	}
	for _, th := range l.threads {
		var first []imclient.Row
		for _, p := range th.people {
			rows, err := p.api.History(bounded(t, 2*time.Minute), th.channel, th.to(p)) // many pages
			require.NoError(t, err)
			if first == nil {
				first = rows
			}
			require.Equal(t, first, rows, "readers see different histories")
		}
		th.checkRows(t, first)
		for _, p := range th.people {
			th.checkPerson(t, p, first)
		}
	}
}

// checkRows: seqs are 1..n, ids rise, one row per message.
func (th *thread) checkRows(t testing.TB, rows []imclient.Row) {
	t.Helper()
	type key struct{ from, clientID int64 }
	once := map[key]imclient.Row{}
	for i, r := range rows {
		require.EqualValues(t, i+1, r.Seq, "a gap or a repeat in the order of record")
		require.True(t, i == 0 || rows[i-1].ID < r.ID, "ids do not rise with seq")
		if r.Type != notice {
			first, twice := once[key{r.From, r.ClientID}]
			require.False(t, twice, "stored twice: %+v and %+v", first, r)
			once[key{r.From, r.ClientID}] = r
		}
	}
}

// checkPerson: what p sent and was told is stored is stored, as told and in the
// order of sending; what p was shown is the history, in its order, once.
func (th *thread) checkPerson(t testing.TB, p *person, rows []imclient.Row) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	bySeq := map[int64]imclient.Row{}
	for _, r := range rows {
		bySeq[r.Seq] = r
	}
	var mine []ackedSend
	for id, a := range p.acked {
		if a.post.thread != th {
			continue
		}
		r, ok := bySeq[a.Seq]
		require.True(t, ok, "lost: message %d of %d was acknowledged as seq %d", id, p.ID, a.Seq)
		require.Equal(t, imclient.Row{ID: a.ID, Seq: a.Seq, ClientID: id, From: p.ID, Type: 1, Text: a.post.text}, r)
		mine = append(mine, a)
	}
	slices.SortFunc(mine, func(a, b ackedSend) int { return a.post.n - b.post.n })
	last := int64(0)
	for _, a := range mine {
		if p.again[a.ClientID] {
			continue // its first sending had no known outcome: it may come later
		}
		require.Greater(t, a.Seq, last, "%d's message %d was stored before an earlier one", p.ID, a.post.n)
		last = a.Seq
	}
	var want []row
	for _, r := range rows {
		if th.channel == imclient.Group || r.From != p.ID {
			want = append(want, row{r.Seq, r.ID, r.From, r.ClientID, r.Type, r.Text})
		}
	}
	got := p.shown[th.conversationLocked(p)]
	require.Equal(t, len(want), len(got), "%d was shown a different number of messages than there are", p.ID)
	require.Equal(t, want, got, "%d was not shown the history", p.ID)
}

// figures are what a load saw of the system's speed.
type figures struct {
	acked                       int
	slowestAck                  time.Duration // from posting to the answer
	slowestPush                 time.Duration // from the answer to the last recipient
	reconnects, resent, repeats int
}

func (f figures) String() string {
	return fmt.Sprintf("%d messages; slowest answer %s, slowest arrival after the answer %s; %d reconnects, %d sent again, %d repeats dropped by clients",
		f.acked, f.slowestAck.Round(time.Millisecond), f.slowestPush.Round(time.Millisecond), f.reconnects, f.resent, f.repeats)
}

func (l *load) figures() (f figures) {
	for _, th := range l.threads {
		for _, from := range th.people {
			from.mu.Lock()
			acked := maps.Clone(from.acked)
			from.mu.Unlock()
			for _, a := range acked {
				if a.post.thread != th {
					continue
				}
				f.acked++
				f.slowestAck = max(f.slowestAck, a.At-a.Posted)
				for _, to := range th.people {
					to.mu.Lock()
					at, ok := to.at[a.ID]
					to.mu.Unlock()
					if ok {
						f.slowestPush = max(f.slowestPush, at-a.At)
					}
				}
			}
		}
	}
	for _, p := range l.people {
		st := p.client.Stats()
		f.reconnects += st.Connects - 1
		f.resent += st.Resent
		f.repeats += st.Duplicates
	}
	return f
}
