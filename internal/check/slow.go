package check

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"im-services/internal/imclient"
	"im-services/internal/tcpproxy"
)

// The kinds of those who are connected and are no good at it.
const (
	silent   = "silent"    // reads nothing
	trickle  = "trickle"   // reads a frame now and then
	halfOpen = "half-open" // vanishes without a word
	loud     = "loud"      // reads, and writes to the others more than they take
)

const (
	loudText   = 3 << 10               // bytes of a message of the loud one
	loudEvery  = 20 * time.Millisecond // between two of them
	loudCount  = 230                   // of them fill every buffer on the way to who does not read, see slowFull
	beatEvery  = 50 * time.Millisecond // a silent one says that he is there, and so hears that his socket is closed
	floodEvery = 4 * time.Millisecond
	readEvery  = 200 * time.Millisecond
	slowBuffer = 4 << 10 // of the kernel, for who does not read
	// patienceWith is how long a silent one waits for being closed: longer than
	// any machine that is too busy may be forgiven.
	patienceWith = 25 * time.Second
)

// slowGroup is a loud one, those who do not read what he writes to their group,
// and what they need.
type slowGroup struct {
	run     *run
	group   int64
	loud    *actor
	members []*actor // silent at each gateway, trickle, half-open
	hostile []string // tokens of those who know nobody
	lives   atomic.Int64
}

// slowOnes lets some connect who do not read, or little, or vanish, while
// somebody writes to them and others flood the gateways with nonsense, again and
// again until ctx ends. Between, there are stretches without them to compare with,
// and in a long run one of either kind in which nothing fails.
// All of them come back and read everything in the end.
func (r *run) slowOnes(ctx context.Context) {
	g := r.slowSetUp(ctx)
	if g == nil {
		return
	}
	g.loud.connect()
	defer func() { // what he has sent is settled as everybody's is
		for end := time.Now().Add(recovery + settlePatience); g.loud.pending() > 0 && time.Now().Before(end) && r.ctx.Err() == nil; {
			g.loud.adopt()
			sleep(r.ctx, 100*time.Millisecond)
		}
		g.loud.leave()
	}()
	var gone sync.WaitGroup
	defer gone.Wait()
	gone.Go(func() { g.vanish(ctx, g.members[3]) })
	half, compare := time.Now().Add(r.o.Duration/2), r.o.Duration >= compareLong
	for n := 1; ; n++ {
		sleep(ctx, 4*time.Second*time.Duration(min(n, 5)))
		if ctx.Err() != nil {
			return
		}
		if compare && time.Now().After(half) && g.undisturbed(ctx, n) {
			compare = false
			continue
		}
		g.beside(ctx, n, 0)
	}
}

// slowSetUp makes the people and their group; nil if ctx ended first.
func (r *run) slowSetUp(ctx context.Context) *slowGroup {
	g := &slowGroup{run: r}
	kinds := []string{loud, silent, silent, trickle, halfOpen}
	for i, kind := range kinds {
		user, api, ok := r.guest(ctx, "slow", i)
		if !ok {
			return nil
		}
		a := &actor{
			run: r, n: i, user: user, api: api, rng: prng(r.o.Seed, "slow", i),
			posted: map[int64]imclient.Outgoing{}, syncs: syncSession{number: sessionRunning}, busy: make(chan struct{}, 1),
		}
		r.log.add(&Event{Client: user.ID, Type: imclient.OK, Op: OpSlow, Text: kind})
		if kind == loud {
			g.loud = a
			continue
		}
		if !r.befriend(ctx, g.loud, a) {
			return nil
		}
		g.members = append(g.members, a)
	}
	for i := range r.system.addresses {
		user, _, ok := r.guest(ctx, "hostile", i)
		if !ok {
			return nil
		}
		g.hostile = append(g.hostile, user.Token)
	}
	var ids []int64
	for _, a := range g.members {
		ids = append(ids, a.user.ID)
	}
	began := imclient.Now()
	if !until(ctx, func(ctx context.Context) (err error) { // one made unheard is a group in which nobody writes
		g.group, err = g.loud.api.CreateGroup(ctx, "check loud", ids...)
		return err
	}) {
		return nil
	}
	everybody := append([]*actor{g.loud}, g.members...)
	for _, a := range everybody {
		r.log.add(&Event{T: began, Client: g.loud.user.ID, Type: imclient.Invoke, Op: OpJoin, To: a.user.ID, Conversation: g.group})
		r.log.add(&Event{Client: g.loud.user.ID, Type: imclient.OK, Op: OpJoin, To: a.user.ID, Conversation: g.group})
		r.setMemberNow(g.group, a.user.ID, true)
		a.targets = []target{{imclient.Group, g.group}}
	}
	r.mu.Lock()
	r.aside = append(r.aside, everybody...)
	r.mu.Unlock()
	return g
}

// readers are all who read everything in the end: who talks, and who does so aside.
func (r *run) readers() []*actor {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Concat(r.actors, r.aside)
}

// everybody is everybody whose messages are in the database.
func (r *run) everybody() []*actor {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Concat(r.actors, r.aside, r.unread)
}

// gateway is the address of a gateway, counted from 0, with nothing between: what
// a proxy has buffered is not with the server any more.
func (r *run) gateway(n int) string {
	if r.system.cluster != nil {
		return r.system.cluster.GatewayURL(1 + n%len(r.system.addresses))
	}
	return r.address(n)
}

// episode lasts until who does not read is closed, or has waited long enough.
func (g *slowGroup) episode(ctx context.Context, n int) {
	ctx, cancel := context.WithTimeout(ctx, patienceWith)
	defer cancel()
	var closed, rest sync.WaitGroup
	defer rest.Wait()
	for i, a := range g.members {
		switch {
		case i < 2:
			closed.Go(func() { g.keepSilent(ctx, a, i) })
		case i == 2:
			rest.Go(func() { g.readLittle(ctx, a, n) })
		}
	}
	for i, token := range g.hostile {
		rest.Go(func() { g.nonsense(ctx, i, token) })
	}
	rest.Go(func() { g.shout(ctx) })
	closed.Wait()
	cancel()
}

// shout writes to the group what fills all that is between him and the others.
func (g *slowGroup) shout(ctx context.Context) {
	for range loudCount {
		m := g.loud.compose(g.loud.targets[0])
		m.Text += "|" + strings.Repeat("x", loudText-len(m.Text))
		g.loud.post(ctx, m)
		sleep(ctx, loudEvery)
		if ctx.Err() != nil {
			return
		}
	}
}

// dial opens a connection for the history and returns its number; nil if it
// cannot.
func (g *slowGroup) dial(ctx context.Context, a *actor, address string, opts imclient.DialOptions) (*imclient.Socket, int) {
	number := int(g.lives.Add(1))
	g.run.log.add(&Event{Client: a.user.ID, Conn: number, Type: imclient.Invoke, Op: imclient.OpConnect, Text: address})
	dialCtx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	socket, err := imclient.Dial(dialCtx, address, a.user.Token, opts)
	if err != nil {
		g.run.log.add(&Event{Client: a.user.ID, Conn: number, Type: imclient.Fail, Op: imclient.OpConnect, Reason: err.Error()})
		return nil, 0
	}
	g.run.log.add(&Event{Client: a.user.ID, Conn: number, Type: imclient.OK, Op: imclient.OpConnect})
	return socket, number
}

func (g *slowGroup) hungUp(a *actor, number int, why string) {
	g.run.log.add(&Event{Client: a.user.ID, Conn: number, Type: imclient.Info, Op: imclient.OpConnect, Reason: why})
}

// ownEnd is why a connection ended that the server had left open.
const ownEnd = "open to the end"

var heartbeat = []byte(`{"msg_code":1004,"message":"ping"}`)

// keepSilent connects and reads nothing. That he is closed he hears when he
// writes: the first write to a socket that is gone is answered with a reset.
func (g *slowGroup) keepSilent(ctx context.Context, a *actor, at int) {
	socket, number := g.dial(ctx, a, g.run.gateway(at), imclient.DialOptions{ReceiveBuffer: slowBuffer})
	if socket == nil {
		return
	}
	defer socket.Cut()
	for {
		if err := socket.Write(heartbeat); err != nil {
			g.hungUp(a, number, err.Error())
			return
		}
		sleep(ctx, beatEvery)
		if ctx.Err() != nil {
			g.hungUp(a, number, ownEnd)
			return
		}
	}
}

// readLittle connects and reads a frame now and then.
func (g *slowGroup) readLittle(ctx context.Context, a *actor, n int) {
	socket, number := g.dial(ctx, a, g.run.gateway(n), imclient.DialOptions{ReceiveBuffer: slowBuffer})
	if socket == nil {
		return
	}
	defer socket.Cut()
	stop := context.AfterFunc(ctx, socket.Cut)
	defer stop()
	for ctx.Err() == nil {
		f, err := socket.Read(0)
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			g.hungUp(a, number, err.Error())
			return
		}
		switch f.Code {
		case imclient.CodeChat:
			g.run.log.add(&Event{
				Client: a.user.ID, Conn: number, Type: imclient.OK, Op: imclient.OpPush, ClientID: f.ClientID, Channel: f.Channel, To: f.To, From: f.From,
				Text: f.Text(), ID: f.ID, Conversation: f.Conversation, Seq: f.Seq,
			})
		case imclient.CodeSyncNeeded:
			g.run.log.add(&Event{Client: a.user.ID, Conn: number, Type: imclient.OK, Op: OpSyncNeeded, Conversation: f.Conversation})
		}
		sleep(ctx, readEvery)
	}
	g.hungUp(a, number, ownEnd)
}

// vanish connects over a link of its own that is then pulled out, lets a friend
// ask until the server has found out, and does so again until ctx ends.
func (g *slowGroup) vanish(ctx context.Context, a *actor) {
	for n := 0; ctx.Err() == nil; n++ {
		g.vanishOnce(ctx, a, n)
		sleep(ctx, time.Second)
	}
}

func (g *slowGroup) vanishOnce(ctx context.Context, a *actor, n int) {
	link, err := tcpproxy.New(strings.TrimPrefix(g.run.gateway(n), "http://"))
	if err != nil {
		return
	}
	defer link.Close()
	socket, number := g.dial(ctx, a, "http://"+link.Addr, imclient.DialOptions{})
	if socket == nil {
		return
	}
	defer socket.Cut()
	defer g.hungUp(a, number, ownEnd)
	online := func() bool {
		callCtx, cancel := context.WithTimeout(g.run.ctx, callLimit)
		defer cancel()
		code, err := status(callCtx, g.loud.api, a.user.ID)
		return err != nil || code == imclient.CodeOnline
	}
	sleep(ctx, 500*time.Millisecond) // it is known that he is there
	e := Event{Client: a.user.ID, Conn: number, Type: imclient.Invoke, Op: OpGone}
	g.run.log.add(&e)
	link.Partition()
	e = Event{Client: a.user.ID, Conn: number, Type: imclient.OK, Op: OpGone}
	for online() {
		if ctx.Err() != nil {
			e.Type = imclient.Fail
			break
		}
		sleep(ctx, 500*time.Millisecond)
	}
	g.run.log.add(&e)
}

// nonsense floods a gateway with what cannot be served, from one who does not
// even read the refusals, and comes back when he is thrown out.
func (g *slowGroup) nonsense(ctx context.Context, at int, token string) {
	frames := []string{
		`{"msg_code":200,"msg_client_id":1,"to_id":"nobody"`,
		`{"msg_code":200,"msg_client_id":-1,"msg_client_id":2}`,
		`[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]`,
		`{"msg_code":1005,"msg_id":99999999999999999999}`,
		"\xff\xfe{}",
	}
	for n := 0; ctx.Err() == nil; n++ {
		dialCtx, cancel := context.WithTimeout(ctx, callLimit)
		socket, err := imclient.Dial(dialCtx, g.run.gateway(at), token, imclient.DialOptions{ReceiveBuffer: slowBuffer})
		cancel()
		for i := 0; err == nil && ctx.Err() == nil; i++ {
			kind := 1
			if i%1000 == 999 {
				kind = 2 // which the protocol does not have
			}
			err = socket.WriteKind(kind, []byte(frames[(n+i)%len(frames)]))
			sleep(ctx, floodEvery)
		}
		if socket != nil {
			socket.Cut()
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

// status asks a friend's view of a user.
func status(ctx context.Context, api *imclient.API, user int64) (code int, err error) {
	var out struct {
		Status int `json:"status"`
	}
	err = api.Call(ctx, http.MethodGet, "/api/friends/status/"+intText(user), nil, &out)
	return out.Status, err
}
