package check

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"im-services/internal/imclient"
)

// until calls f until it succeeds; f must be safe to repeat. False if ctx ended
// first.
func until(ctx context.Context, f func(ctx context.Context) error) bool {
	for ctx.Err() == nil {
		callCtx, cancel := context.WithTimeout(ctx, callLimit)
		err := f(callCtx)
		cancel()
		if err == nil {
			return true
		}
		sleep(ctx, 200*time.Millisecond)
	}
	return false
}

var errNotYet = errors.New("check: not yet")

// befriend makes two people friends and returns when the server confirms it.
func (r *run) befriend(ctx context.Context, a, b *actor) bool {
	ctx, cancel := context.WithTimeout(ctx, churnLimit)
	defer cancel()
	r.log.add(&Event{Client: a.user.ID, Type: imclient.Invoke, Op: OpFriend, To: b.user.ID})
	var record int64
	ok := until(ctx, func(ctx context.Context) error {
		if record == 0 {
			var err error
			if record, err = a.api.AskFriend(ctx, b.user.ID); err != nil {
				record = waiting(ctx, a, b)
			}
		}
		if record == 0 {
			return errNotYet
		}
		// That they are friends does not say yet that they may write: the answer does,
		// or if it went unheard, that there is nothing left to answer.
		if err := b.api.AnswerFriend(ctx, record, true); err != nil && reasonOf(err) != "friend_request_not_answerable" {
			return err
		}
		if !isFriend(ctx, a.api, b.user.ID) || !isFriend(ctx, b.api, a.user.ID) {
			return errNotYet
		}
		return nil
	})
	if ok {
		r.log.add(&Event{Client: a.user.ID, Type: imclient.OK, Op: OpFriend, To: b.user.ID})
	}
	return ok
}

func isFriend(ctx context.Context, api *imclient.API, user int64) bool {
	var f struct {
		To int64 `json:"to_id"`
	}
	return api.Call(ctx, http.MethodGet, "/api/friends/"+intText(user), nil, &f) == nil && f.To == user
}

// waiting returns a's request to b that waits for an answer, 0 if there is none.
func waiting(ctx context.Context, a, b *actor) int64 {
	list, err := a.api.FriendRequests(ctx)
	if err != nil {
		return 0
	}
	for _, l := range list {
		if l.From == a.user.ID && l.To == b.user.ID && l.Status == 0 {
			return l.ID
		}
	}
	return 0
}

// unfriend ends a friendship and returns when the server confirms it.
func (r *run) unfriend(ctx context.Context, a, b *actor) bool {
	ctx, cancel := context.WithTimeout(ctx, churnLimit)
	defer cancel()
	r.log.add(&Event{Client: a.user.ID, Type: imclient.Invoke, Op: OpUnfriend, To: b.user.ID})
	ok := until(ctx, func(ctx context.Context) error { return a.api.Unfriend(ctx, b.user.ID) })
	if ok {
		r.log.add(&Event{Client: a.user.ID, Type: imclient.OK, Op: OpUnfriend, To: b.user.ID})
	}
	return ok
}

// maxTurns bounds how often a friendship ends on a system that is not ours: it
// limits the requests that somebody may send in a day.
const maxTurns = 80

// churnLimit bounds one change: it is left unfinished then, and the talking can end.
const churnLimit = 3 * time.Minute

// churnPair ends and renews one friendship until ctx ends; what has begun is
// carried to its end, for as long as changing lasts.
func (r *run) churnPair(ctx context.Context, n int, a, b *actor) {
	rng := prng(r.o.Seed, "pair", n)
	for turn := 0; r.system.cluster != nil || turn < maxTurns; turn++ {
		slept := false
		select {
		case <-time.After(time.Duration((1 + 2*rng.Float64()) * float64(time.Second))):
		case <-r.nap[n]:
			slept = true
		case <-ctx.Done():
		}
		r.hush.wait(ctx)
		if ctx.Err() != nil {
			return
		}
		if rng.IntN(2) == 0 {
			a, b = b, a
		}
		if slept {
			if !r.stray(ctx, a, b) {
				return
			}
			continue
		}
		if !r.unfriend(r.changing, a, b) {
			return
		}
		sleep(ctx, time.Duration((0.3+rng.Float64())*float64(time.Second)))
		if !r.befriend(r.changing, a, b) {
			return
		}
	}
}

// isMember asks the owner's view, which is always allowed.
func (g *group) isMember(ctx context.Context, user int64) (bool, error) {
	var out struct {
		Users []struct {
			User int64 `json:"user_id"`
		} `json:"group_users"`
	}
	if err := g.owner.api.Call(ctx, http.MethodGet, "/api/groups/users/"+intText(g.id), nil, &out); err != nil {
		return false, err
	}
	for _, u := range out.Users {
		if u.User == user {
			return true, nil
		}
	}
	return false, nil
}

// setMember makes m a member, or no longer one, and returns when the server
// confirms it. self: m himself leaves, or joins.
func (r *run) setMember(ctx context.Context, g *group, m *actor, in, self bool) bool {
	ctx, cancel := context.WithTimeout(ctx, churnLimit)
	defer cancel()
	op, kind := OpLeave, "2"
	if in {
		op, kind = OpJoin, "1"
	}
	r.log.add(&Event{Client: g.owner.user.ID, Type: imclient.Invoke, Op: op, To: m.user.ID, Conversation: g.id})
	done := until(ctx, func(ctx context.Context) error {
		var err error
		switch {
		case self && in:
			err = m.api.Call(ctx, http.MethodPost, "/api/groups/applyJoin/"+intText(g.id), nil, nil)
		case self:
			err = m.api.Call(ctx, http.MethodDelete, "/api/groups/"+intText(g.id), nil, nil)
		default:
			err = g.owner.api.Call(ctx, http.MethodPost, "/api/groups/createOrRemoveUser", url.Values{
				"group_id": {intText(g.id)}, "type": {kind}, "select_user[]": {intText(m.user.ID)},
			}, nil)
		}
		if err == nil {
			return nil
		}
		// It may have taken effect without our hearing of it.
		if is, asked := g.isMember(ctx, m.user.ID); asked == nil && is == in {
			return nil
		}
		return err
	})
	if done {
		r.log.add(&Event{Client: g.owner.user.ID, Type: imclient.OK, Op: op, To: m.user.ID, Conversation: g.id})
		r.setMemberNow(g.id, m.user.ID, in)
	}
	return done
}

// churnGroup lets members leave, be removed and come back until ctx ends.
func (r *run) churnGroup(ctx context.Context, n int, g *group) {
	rng := prng(r.o.Seed, "group", n)
	for {
		sleep(ctx, time.Duration((1+2*rng.Float64())*float64(time.Second)))
		r.hush.wait(ctx)
		if ctx.Err() != nil {
			return
		}
		m := g.changing[rng.IntN(len(g.changing))]
		leaves, joins := rng.IntN(2) == 0, rng.IntN(2) == 0
		away := time.Duration((0.3 + 2*rng.Float64()) * float64(time.Second))
		stays := rng.IntN(8) == 0 // away, until the next change of his
		if r.memberNow(g.id, m.user.ID) {
			if !r.setMember(r.changing, g, m, false, leaves) {
				return
			}
			if stays {
				continue
			}
			sleep(ctx, away)
		}
		if !r.setMember(r.changing, g, m, true, joins) {
			return
		}
	}
}
