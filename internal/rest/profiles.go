package rest

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"
	"golang.org/x/sync/singleflight"

	authv1 "im-services/api/proto/auth/v1"
	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/wire"
)

// Limits of the calls that fetch users.
const (
	profileBatch    = 500             // users per call
	profileTimeout  = 3 * time.Second // per call
	presenceTimeout = 300 * time.Millisecond
)

// profiles keeps users as auth last told them. A user may be shown as he was up
// to one TTL ago; one who does not exist is asked for each time, so that a new
// account is visible at once.
type profiles struct {
	auth   authv1.AuthServiceClient
	cache  *expirable.LRU[im.UserID, *authv1.User]
	flight singleflight.Group
}

func newProfiles(auth authv1.AuthServiceClient, size int, ttl time.Duration) *profiles {
	return &profiles{auth: auth, cache: expirable.NewLRU[im.UserID, *authv1.User](size, nil, ttl)}
}

// get returns those of the users that exist; with an error those that are known
// all the same. The values are shared: read only.
func (p *profiles) get(ctx context.Context, ids []im.UserID) (map[im.UserID]*authv1.User, error) {
	found := make(map[im.UserID]*authv1.User, len(ids))
	var missing []int64
	for _, id := range ids {
		if !id.Valid() || found[id] != nil {
			continue
		}
		if u, ok := p.cache.Get(id); ok {
			found[id] = u
		} else {
			missing = append(missing, int64(id))
		}
	}
	slices.Sort(missing)
	for batch := range slices.Chunk(slices.Compact(missing), profileBatch) {
		users, err := p.fetch(ctx, batch)
		if err != nil {
			return found, err
		}
		for _, u := range users {
			found[im.UserID(u.GetId())] = u
		}
	}
	return found, nil
}

// fetch asks auth once for all callers who want the same users at the same
// time. The call outlives the caller who happens to make it, so that his going
// away fails nobody else.
func (p *profiles) fetch(ctx context.Context, ids []int64) ([]*authv1.User, error) {
	var key strings.Builder
	for _, id := range ids {
		key.WriteString(strconv.FormatInt(id, 36))
		key.WriteByte(' ')
	}
	v, err, _ := p.flight.Do(key.String(), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), profileTimeout)
		defer cancel()
		resp, err := p.auth.GetUsers(ctx, &authv1.GetUsersRequest{Ids: ids})
		if err != nil {
			return nil, err
		}
		for _, u := range resp.GetUsers() {
			p.cache.Add(im.UserID(u.GetId()), u)
		}
		return resp.GetUsers(), nil
	})
	if err != nil {
		return nil, err
	}
	users, _ := v.([]*authv1.User)
	return users, nil
}

// people is a set of users together with who of them is online.
type people struct {
	*api
	users  map[im.UserID]*authv1.User
	online map[im.UserID]bool
}

// people fetches users for showing them to the caller. On error the result is
// usable and knows nobody. Presence is a courtesy:
// when it cannot be had, everybody is shown offline.
func (c *call) people(ids []im.UserID) (people, error) {
	users, err := c.profiles.get(c.ctx(), ids)
	if err != nil {
		return people{api: c.api}, err
	}
	return people{api: c.api, users: users, online: c.presence(ids)}, nil
}

// cards is people without presence.
func (c *call) cards(ids []im.UserID) (people, error) {
	users, err := c.profiles.get(c.ctx(), ids)
	return people{api: c.api, users: users}, err
}

func (c *call) presence(ids []im.UserID) map[im.UserID]bool {
	online := make(map[im.UserID]bool, len(ids))
	if len(ids) == 0 {
		return online
	}
	ctx, cancel := context.WithTimeout(c.ctx(), presenceTimeout)
	defer cancel()
	req := &logicv1.PresenceRequest{ViewerId: int64(c.me)}
	seen := make(map[im.UserID]bool, len(ids))
	for _, id := range ids {
		if id.Valid() && !seen[id] {
			seen[id] = true
			req.UserIds = append(req.UserIds, int64(id))
		}
	}
	resp, err := c.Conversations.Presence(ctx, req)
	if err != nil {
		c.Log.Debug("presence is not known", "err", err)
		return online
	}
	for _, u := range resp.GetUsers() {
		online[im.UserID(u.GetUserId())] = u.GetOnline()
	}
	return online
}

// user is the full user object; zero for one who does not exist.
func (p people) user(id im.UserID) wire.UserBody {
	u := p.users[id]
	if u == nil {
		return wire.UserBody{}
	}
	return wire.UserBody{
		ID: id, Name: u.GetName(), Email: u.GetEmail(), Avatar: p.avatar(u.GetAvatar(), id),
		Status: bit(p.online[id]), Bio: u.GetBio(), Sex: u.GetSex(), ClientType: u.GetClientType(),
		Age: u.GetAge(), LastLoginTime: p.time(u.GetLastLoginAtMs()), UID: id.UID(),
	}
}

func (p people) card(id im.UserID) wire.CardBody {
	u := p.user(id)
	return wire.CardBody{ID: u.ID, Name: u.Name, Email: u.Email, Avatar: u.Avatar}
}

func (p people) profile(id im.UserID) wire.ProfileBody {
	u := p.user(id)
	return wire.ProfileBody{ID: u.ID, Name: u.Name, Avatar: u.Avatar}
}

// avatar makes a user's avatar absolute; one who has none gets his generated one.
func (a *api) avatar(path string, id im.UserID) string {
	return wire.AvatarURL(a.Config.PublicURL, path, id)
}

// absolute puts the public URL before a path of ours.
func (a *api) absolute(path string) string {
	return wire.AbsoluteURL(a.Config.PublicURL, path)
}

// exists fails with user_not_found for somebody who does not exist.
func (c *call) exists(id im.UserID) error {
	users, err := c.profiles.get(c.ctx(), []im.UserID{id})
	if err != nil {
		return err
	}
	if users[id] == nil {
		return im.E(im.KindNotFound, "user_not_found", nil)
	}
	return nil
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
