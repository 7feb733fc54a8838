//go:build failpoint

package failpoint_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // the cluster's server is asked directly
	"github.com/stretchr/testify/require"

	"im-services/internal/cluster"
	"im-services/internal/imclient"
)

const (
	// actWithin is how long the traffic of a cell may take to reach its point.
	actWithin = 20 * time.Second
	// healWithin is how long after that everything may take to be settled and shown.
	healWithin = 30 * time.Second
	// posts is how many messages each person of each kind posts in one go.
	posts = 4
)

// TestG1to5_Failpoints crosses every point with every action, in a cluster of
// real processes with two of each service. In each cell people talk, reconnect
// and meet while one process fails once at the point; afterwards everything
// must have ended well: see check.
func TestG1to5_Failpoints(t *testing.T) {
	nap := os.Getenv("FAILPOINT_SLEEP")
	if nap == "" {
		nap = "2s"
	}
	tb := newTable(t)
	for _, p := range points {
		for _, action := range []string{"error", "sleep(" + nap + ")", "panic", "exit"} {
			verb, _, _ := strings.Cut(action, "(")
			t.Run(p.name+"/"+verb, func(t *testing.T) { tb.cell(t, p, action) })
		}
	}
}

// table is the system and the people in it.
type table struct {
	system *cluster.Cluster
	file   string
	db     *sql.DB
	people []*person
	pair   [2]*person // whose friendship changes
	group  int64
	cell0  int // numbers the messages
}

// person is a user with a connection that is kept.
type person struct {
	imclient.User
	api    *imclient.API
	client *imclient.Client

	mu      sync.Mutex
	posted  []post
	settled map[int64]*imclient.Settled
	shown   map[string]int
	late    int
}

type post struct {
	client  int64
	at      time.Duration
	text    string
	channel int
	to      int64
}

func newTable(t *testing.T) *table {
	// A socket below t.TempDir would have too long a path.
	dir, err := os.MkdirTemp("", "im-failpoints-") //nolint:usetesting // see above
	require.NoError(t, err)
	tb := &table{file: filepath.Join(dir, "points")}
	require.NoError(t, os.WriteFile(tb.file, nil, 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	tb.system, err = cluster.Start(ctx, cluster.Options{
		StateDir: dir, Progress: os.Stderr, BuildFlags: []string{"-tags=failpoint"},
		Env: func(_ *cluster.Cluster, _ string, env map[string]string) {
			env["IM_FAILPOINTS_FILE"] = tb.file
			env["IM_FRIEND_REQUESTS_PER_DAY"] = "100000"
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		tb.system.Stop()
		if t.Failed() {
			t.Log("logs and data are kept in", dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	dsn, err := tb.system.DSN("im_logic")
	require.NoError(t, err)
	tb.db, err = sql.Open("mysql", dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tb.db.Close() })

	for i := range 3 {
		tb.people = append(tb.people, tb.newPerson(t, ctx, 1+i%2))
	}
	tb.pair = [2]*person{tb.newPerson(t, ctx, 1), tb.newPerson(t, ctx, 2)}
	a, b, c := tb.people[0], tb.people[1], tb.people[2]
	for _, x := range []*person{b, c} {
		id, err := a.api.AskFriend(ctx, x.ID)
		require.NoError(t, err)
		require.NoError(t, x.api.AnswerFriend(ctx, id, true))
	}
	tb.group, err = a.api.CreateGroup(ctx, "all", b.ID, c.ID)
	require.NoError(t, err)
	for i, p := range tb.people {
		tb.connect(t, ctx, p, i)
	}
	return tb
}

func (tb *table) newPerson(t *testing.T, ctx context.Context, gateway int) *person {
	api := imclient.NewAPI(tb.system.GatewayURL(gateway), nil)
	name := "f" + strconv.FormatInt(time.Now().UnixNano()%1e12, 36)
	require.NoError(t, api.Register(ctx, name+"@example.com", name, "secret123"))
	user, err := api.Login(ctx, name+"@example.com", "secret123")
	require.NoError(t, err)
	return &person{User: user, api: api.As(user.Token), settled: map[int64]*imclient.Settled{}, shown: map[string]int{}}
}

// connect gives a person a connection. The second acknowledges what it shows,
// the others leave the proof to their pongs.
func (tb *table) connect(t *testing.T, ctx context.Context, p *person, i int) {
	p.client = imclient.Start(imclient.Config{
		User: p.User, Addresses: []string{tb.system.GatewayURL(1), tb.system.GatewayURL(2)}, First: i,
		AckTimeout: 1500 * time.Millisecond, Heartbeat: time.Second, Silence: 5 * time.Second, Receipts: i == 1,
		BackoffMax: time.Second,
		OnMessage: func(f *imclient.Frame, late bool) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.shown[f.Text()]++
			if late {
				p.late++
			}
		},
		OnSettled: func(s *imclient.Settled) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.settled[s.ClientID] = s
		},
	})
	t.Cleanup(p.client.Close)
	require.NoError(t, p.client.WaitConnected(ctx))
}

// post sends a few messages in one go: to each other and to the group.
func (tb *table) post(t *testing.T, ctx context.Context) {
	tb.cell0++
	for i, p := range tb.people {
		for n := range posts {
			out := imclient.Outgoing{Text: fmt.Sprintf("%d-%d-%d", tb.cell0, i, n), Channel: imclient.Group, To: tb.group}
			if n%2 == 0 {
				other := tb.people[0]
				if i == 0 {
					other = tb.people[1]
				}
				out.Channel, out.To = imclient.Private, other.ID
			}
			at := imclient.Now()
			id, err := p.client.Post(ctx, out)
			require.NoError(t, err)
			p.mu.Lock()
			p.posted = append(p.posted, post{id, at, out.Text, out.Channel, out.To})
			p.mu.Unlock()
		}
	}
}

// cell makes one process fail once at a point, and judges what came of it.
func (tb *table) cell(t *testing.T, p point, action string) {
	ctx, cancel := context.WithTimeout(t.Context(), actWithin+2*healWithin)
	defer cancel()
	proofs, _ := filepath.Glob(tb.file + ".*")
	for _, f := range proofs {
		_ = os.Remove(f)
	}
	tb.arm(t, p.name+"="+action+"*1;"+p.with)
	reached := func() bool { _, err := os.Stat(tb.file + "." + p.name + ".1"); return err == nil }
	for end := time.Now().Add(actWithin); !reached(); {
		require.True(t, time.Now().Before(end), "%s did not act", p.name)
		tb.post(t, ctx)
		tb.people[1].client.Cut()
		if p.do != nil {
			p.do(tb)
		}
		tb.post(t, ctx)
		for wait := time.Now().Add(time.Second); time.Now().Before(wait) && !reached(); {
			time.Sleep(20 * time.Millisecond)
		}
	}
	tb.post(t, ctx) // while it sleeps or is down
	tb.arm(t, "")
	for _, proc := range tb.system.Processes() {
		require.NoError(t, proc.WaitReady(ctx), proc.Name())
	}
	tb.befriendPair(t, ctx)
	tb.eventually(t, "everything posted is settled", func() error {
		for _, q := range tb.people {
			if n := q.client.Stats().Pending; n > 0 {
				return fmt.Errorf("%s has %d unsettled", q.Name, n)
			}
		}
		return nil
	})
	tb.eventually(t, "everything acknowledged is shown", tb.allShown)
	tb.check(t)
	for _, q := range tb.people { // what is checked need not be checked again
		q.mu.Lock()
		q.posted = nil
		q.mu.Unlock()
	}
}

func (tb *table) arm(t *testing.T, spec string) {
	t.Helper()
	// A new file in the place of the old: nobody reads half of it.
	require.NoError(t, os.WriteFile(tb.file+"~", []byte(spec), 0o600))
	require.NoError(t, os.Rename(tb.file+"~", tb.file))
	time.Sleep(15 * time.Millisecond)
}

func (tb *table) eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	err := f()
	for end := time.Now().Add(healWithin); err != nil; err = f() {
		require.True(t, time.Now().Before(end), "not within %v: %s: %v", healWithin, what, err)
		time.Sleep(20 * time.Millisecond)
	}
}

// recipients are who must be shown a post.
func (tb *table) recipients(sender *person, m post) []*person {
	var out []*person
	for _, q := range tb.people {
		if q != sender && (m.channel == imclient.Group || q.ID == m.to) {
			out = append(out, q)
		}
	}
	return out
}

func (tb *table) allShown() error {
	for _, p := range tb.people {
		p.mu.Lock()
		posted := append([]post(nil), p.posted...)
		p.mu.Unlock()
		for _, m := range posted {
			p.mu.Lock()
			s := p.settled[m.client]
			p.mu.Unlock()
			if s == nil || !s.Acked {
				continue
			}
			for _, q := range tb.recipients(p, m) {
				q.mu.Lock()
				n := q.shown[m.text]
				q.mu.Unlock()
				if n == 0 {
					return fmt.Errorf("%s was not shown %q", q.Name, m.text)
				}
			}
		}
	}
	return nil
}

// stored is a message as the database has it.
type stored struct {
	conversation, seq, id int64
	text                  string
}

// check judges the last posts: acknowledged means stored once, under the seq of
// the acknowledgement; refused means not stored; nothing is shown twice, late
// or unasked; seqs have no gap and follow real time.
func (tb *table) check(t *testing.T) {
	t.Helper()
	for _, p := range tb.people {
		p.mu.Lock()
		require.Zero(t, p.late, "G6: %s was shown messages out of order", p.Name)
		for text, n := range p.shown {
			require.Equal(t, 1, n, "G4: %s was shown %q %d times", p.Name, text, n)
		}
		p.mu.Unlock()
	}
	type done struct {
		m post
		s *imclient.Settled
	}
	acked := map[int64][]done{}
	for _, p := range tb.people {
		rows := tb.rowsOf(t, p.ID)
		for _, m := range p.posted {
			s := p.settled[m.client]
			require.NotNil(t, s, "G2: %q of %s did not end", m.text, p.Name)
			got := rows[m.client]
			switch {
			case s.Acked:
				require.Len(t, got, 1, "G1, G3: %q is stored %d times", m.text, len(got))
				require.Equal(t, stored{s.Conversation, s.Seq, s.ID, m.text}, got[0], "the acknowledgement names another message")
				acked[s.Conversation] = append(acked[s.Conversation], done{m, s})
			case s.Unknown:
				require.LessOrEqual(t, len(got), 1)
			default:
				require.Empty(t, got, "G2: %q was refused (%s) and is stored", m.text, s.Reason)
			}
		}
	}
	for conv, list := range acked {
		for _, x := range list {
			for _, y := range list {
				if x.s.At < y.m.at {
					require.Less(t, x.s.Seq, y.s.Seq, "G5: in %d %q was acknowledged before %q was sent", conv, x.m.text, y.m.text)
				}
			}
		}
	}
	var bad int
	require.NoError(t, tb.db.QueryRow(`SELECT COUNT(*) FROM (SELECT c.id FROM conversations c LEFT JOIN messages m ON m.conversation_id = c.id
		GROUP BY c.id, c.last_seq HAVING COUNT(m.seq) <> c.last_seq OR COALESCE(MAX(m.seq), 0) <> c.last_seq) x`).Scan(&bad))
	require.Zero(t, bad, "G5: conversations with a gap")
	tb.eventually(t, "the outbox empties", func() error {
		var n int
		if err := tb.db.QueryRow(`SELECT COUNT(*) FROM outbox`).Scan(&n); err != nil || n > 0 {
			return errors.Join(err, fmt.Errorf("%d rows", n))
		}
		return nil
	})
}

func (tb *table) rowsOf(t *testing.T, sender int64) map[int64][]stored {
	t.Helper()
	rows, err := tb.db.Query(`SELECT client_msg_id, conversation_id, seq, id, text FROM messages WHERE sender_id = ?`, sender)
	require.NoError(t, err)
	defer func() { _ = rows.Close() }()
	out := map[int64][]stored{}
	for rows.Next() {
		var client int64
		var s stored
		require.NoError(t, rows.Scan(&client, &s.conversation, &s.seq, &s.id, &s.text))
		out[client] = append(out[client], s)
	}
	require.NoError(t, rows.Err())
	return out
}

// changeFriends ends and renews a friendship; failing is allowed.
func (tb *table) changeFriends() {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	a, b := tb.pair[0], tb.pair[1]
	if id, err := a.api.AskFriend(ctx, b.ID); err == nil {
		_ = b.api.AnswerFriend(ctx, id, true)
	}
	_ = a.api.Unfriend(ctx, b.ID)
}

// befriendPair brings the friendship that changes to a certain end: whatever
// failed half-way, it can be ended and made again, and sends obey each at once.
func (tb *table) befriendPair(t *testing.T, ctx context.Context) {
	t.Helper()
	a, b := tb.pair[0], tb.pair[1]
	hello := &imclient.Outgoing{To: b.ID, Text: "hello"}
	tb.eventually(t, "the friendship ends", func() error { return a.api.Unfriend(ctx, b.ID) })
	hello.ClientID = time.Now().UnixMicro()
	_, err := a.api.Send(ctx, hello)
	require.Error(t, err, "G12: a message to somebody who is no friend any more")
	tb.eventually(t, "the friendship begins", func() error {
		id, err := a.api.AskFriend(ctx, b.ID)
		if err != nil { // an earlier request may wait for its answer
			var waiting []struct {
				ID int64 `json:"id"`
			}
			if listErr := b.api.Call(ctx, http.MethodGet, "/api/friends/record", nil, &waiting); listErr != nil || len(waiting) == 0 {
				return errors.Join(err, listErr)
			}
			id = waiting[0].ID
		}
		return b.api.AnswerFriend(ctx, id, true)
	})
	hello.ClientID = time.Now().UnixMicro()
	_, err = a.api.Send(ctx, hello)
	require.NoError(t, err, "a message to a friend")
	tb.eventually(t, "the friendship ends", func() error { return a.api.Unfriend(ctx, b.ID) })
}

// flushRedis makes Redis forget everything.
func (tb *table) flushRedis() {
	conn, err := net.DialTimeout("tcp", tb.system.Addr("redis"), time.Second)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = conn.Write([]byte("FLUSHALL\r\n"))
	_, _ = bufio.NewReader(conn).ReadString('\n')
}
