package check

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"im-services/internal/imclient"
)

// group is a group and those of its members who come and go.
type group struct {
	id       int64
	owner    *actor
	members  []*actor
	changing []*actor
}

// setUp makes the people, their friendships and groups. Person i writes to i+1
// and i+2 and is written to by them; i and i+n/2 are friends off and on.
func (r *run) setUp(ctx context.Context) error {
	web := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 10 * time.Second}}
	n := r.o.Users
	r.actors = make([]*actor, n)
	stamp := strconv.FormatInt(time.Now().UnixMilli()%1e9, 36)
	for i := range n {
		base := r.system.addresses[i%len(r.system.addresses)]
		name := fmt.Sprintf("c%sx%d", stamp, i)
		api := imclient.NewAPI(base, web)
		var user imclient.User
		var refused error
		if !until(ctx, func(ctx context.Context) error {
			refused = api.Register(ctx, name+"@example.com", name, "secret123") // it may have been made unheard
			var err error
			user, err = api.Login(ctx, name+"@example.com", "secret123")
			return err
		}) {
			return errors.Join(errors.New("check: an account cannot be made"), refused)
		}
		r.actors[i] = &actor{
			run: r, n: i, user: user, api: api.As(user.Token), rng: prng(r.o.Seed, "actor", i),
			posted: map[int64]imclient.Outgoing{}, syncs: syncSession{number: sessionRunning}, busy: make(chan struct{}, 1),
		}
	}
	type pair struct{ a, b int }
	befriended := map[pair]bool{}
	var g errgroup.Group
	g.SetLimit(4)
	know := func(i, j int, write bool) *actor {
		a, b := r.actors[i], r.actors[j]
		p := pair{min(i, j), max(i, j)}
		if i != j && !befriended[p] {
			befriended[p] = true
			g.Go(func() error {
				if !r.befriend(ctx, a, b) {
					return fmt.Errorf("check: users %d and %d cannot become friends", a.user.ID, b.user.ID)
				}
				return nil
			})
			if write {
				a.targets = append(a.targets, target{imclient.Private, b.user.ID})
				b.targets = append(b.targets, target{imclient.Private, a.user.ID})
			}
		}
		return b
	}
	for i := range n {
		know(i, (i+1)%n, true)
		know(i, (i+2)%n, true)
	}
	for i := range n / 4 { // off and on
		know(i, i+n/2, true)
		r.pairs = append(r.pairs, [2]*actor{r.actors[i], r.actors[i+n/2]})
	}
	r.nap = newNap(len(r.pairs))
	for k := range 2 {
		owner := r.actors[k]
		gr := &group{owner: owner, members: []*actor{owner}}
		for i := range n * 2 / 3 {
			if j := (k*3 + i) % n; j != k {
				gr.members = append(gr.members, know(k, j, false))
			}
		}
		gr.changing = gr.members[len(gr.members)*2/3:]
		r.groups = append(r.groups, gr)
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for k, gr := range r.groups {
		var ids []int64
		for _, m := range gr.members[1:] {
			ids = append(ids, m.user.ID)
		}
		began := imclient.Now()
		id, err := gr.owner.api.CreateGroup(ctx, fmt.Sprintf("check %d", k), ids...)
		if err != nil {
			return fmt.Errorf("check: make a group: %w", err)
		}
		gr.id = id
		for _, m := range gr.members {
			r.log.add(&Event{T: began, Client: gr.owner.user.ID, Type: imclient.Invoke, Op: OpJoin, To: m.user.ID, Conversation: id})
			r.log.add(&Event{Client: gr.owner.user.ID, Type: imclient.OK, Op: OpJoin, To: m.user.ID, Conversation: id})
			r.setMemberNow(id, m.user.ID, true)
			m.targets = append(m.targets, target{imclient.Group, id}, target{imclient.Group, id})
		}
	}
	return nil
}
