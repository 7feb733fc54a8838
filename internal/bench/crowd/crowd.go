package crowd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// User is an account that can connect.
type User struct {
	ID      int64     `json:"id"`
	Email   string    `json:"email"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// Group is a group and its members; the first is the owner.
type Group struct {
	ID      int64   `json:"id"`
	Members []int64 `json:"members"`
}

// Crowd is the users, friendships and groups of one deployment. Its methods may
// be used by one goroutine at a time.
type Crowd struct {
	api      *API
	file     string
	progress func(format string, args ...any)

	mu    sync.Mutex // guards saved within a method's own goroutines
	saved saved
}

// saved is what the file holds. It holds tokens: the file is for its owner only.
type saved struct {
	Base    string          `json:"base"`
	Tag     string          `json:"tag"` // tells apart the names of different crowds
	Next    int             `json:"next"`
	Users   []User          `json:"users"`
	Friends map[string]bool `json:"friends"`
	Groups  []Group         `json:"groups"`
}

const (
	password = "bench-Pass1"
	// registering is how many accounts are made at once: hashing is bounded by
	// the server's processors anyway.
	registering = 8
	// calling is how many other calls are made at once.
	calling = 16
	// leastLife is how long a kept token must still be good for.
	leastLife = 2 * time.Hour
)

// Open reads the crowd kept in file, if it belongs to base and its accounts
// still exist there. progress gets a line now and then; nil: nobody.
func Open(ctx context.Context, base, file string, progress func(format string, args ...any)) (*Crowd, error) {
	if progress == nil {
		progress = func(string, ...any) {}
	}
	c := &Crowd{api: NewAPI(base), file: file, progress: progress}
	text, err := os.ReadFile(file) //nolint:gosec // the caller's own file
	if err == nil {
		err = json.Unmarshal(text, &c.saved)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		progress("%s is of no use (%v): making new accounts", file, err)
		c.saved = saved{}
	case c.saved.Base != base || !c.known(ctx):
		progress("the kept accounts are not of this deployment: making new ones")
		c.saved = saved{}
	}
	if c.saved.Tag == "" {
		var tag [4]byte
		if _, err := rand.Read(tag[:]); err != nil {
			return nil, err
		}
		c.saved.Base, c.saved.Tag = base, hex.EncodeToString(tag[:])
	}
	if c.saved.Friends == nil {
		c.saved.Friends = map[string]bool{}
	}
	return c, nil
}

// known reports whether the deployment knows the first and the last account and
// would for a while.
func (c *Crowd) known(ctx context.Context) bool {
	for _, i := range []int{0, len(c.saved.Users) - 1} {
		if i < 0 || i >= len(c.saved.Users) {
			return false
		}
		u := c.saved.Users[i]
		var got struct {
			Email string `json:"email"`
		}
		err := c.api.Call(ctx, u.Token, http.MethodGet, "/api/user/"+strconv.FormatInt(u.ID, 10), nil, &got)
		if err != nil || time.Until(u.Expires) < leastLife || got.Email != "" && got.Email != u.Email {
			return false
		}
	}
	return true
}

// API is the client the crowd calls with.
func (c *Crowd) API() *API { return c.api }

// Close lets go of idle connections; the file has been written before.
func (c *Crowd) Close() { c.api.Close() }

func (c *Crowd) save() error {
	if c.file == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.file), 0o700); err != nil {
		return err
	}
	text, err := json.Marshal(&c.saved)
	if err != nil {
		return err
	}
	tmp := c.file + ".tmp"
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, c.file)
}

// Users returns n accounts, making those that are missing.
func (c *Crowd) Users(ctx context.Context, n int) ([]User, error) {
	missing := n - len(c.saved.Users)
	if missing <= 0 {
		return append([]User(nil), c.saved.Users[:n]...), nil
	}
	begin := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(registering)
	for range missing {
		c.mu.Lock()
		c.saved.Next++
		number := c.saved.Next
		c.mu.Unlock()
		g.Go(func() error {
			u, err := c.register(gctx, number)
			if err != nil {
				return err
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.saved.Users = append(c.saved.Users, u)
			if made := n - len(c.saved.Users); made%500 == 0 && made > 0 {
				c.progress("  %d accounts to go, %s so far", made, time.Since(begin).Round(time.Second))
				return c.save()
			}
			return nil
		})
	}
	err := g.Wait()
	if err = errors.Join(err, c.save()); err != nil {
		return nil, fmt.Errorf("make %d accounts: %w", missing, err)
	}
	c.progress("made %d accounts in %s", missing, time.Since(begin).Round(100*time.Millisecond))
	return append([]User(nil), c.saved.Users[:n]...), nil
}

func (c *Crowd) register(ctx context.Context, number int) (User, error) {
	name := fmt.Sprintf("bench%s%d", c.saved.Tag, number)
	u := User{Email: name + "@example.com"}
	err := c.api.Call(ctx, "", http.MethodPost, "/api/auth/registered", map[string]any{
		"email": u.Email, "name": name, "password": password, "password_repeat": password, "code": "0000",
	}, nil)
	if err != nil {
		return u, err
	}
	var in struct {
		ID      int64  `json:"id"`
		Token   string `json:"token"`
		Expires int64  `json:"expire_time"`
	}
	if err := c.api.Call(ctx, "", http.MethodPost, "/api/auth/login", map[string]any{"email": u.Email, "password": password}, &in); err != nil {
		return u, err
	}
	u.ID, u.Token, u.Expires = in.ID, in.Token, time.Unix(in.Expires, 0)
	return u, nil
}

func pairKey(a, b int64) string {
	return strconv.FormatInt(min(a, b), 10) + ":" + strconv.FormatInt(max(a, b), 10)
}

// Befriend makes each pair friends.
func (c *Crowd) Befriend(ctx context.Context, pairs [][2]User) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(calling)
	for _, p := range pairs {
		key := pairKey(p[0].ID, p[1].ID)
		if c.saved.Friends[key] {
			continue
		}
		g.Go(func() error {
			var record struct {
				ID int64 `json:"id"`
			}
			if err := c.api.Call(gctx, p[0].Token, http.MethodPost, "/api/friends/record",
				map[string]any{"to_id": p[1].ID, "information": "bench"}, &record); err != nil {
				return err
			}
			if err := c.api.Call(gctx, p[1].Token, http.MethodPut, "/api/friends/record",
				map[string]any{"id": record.ID, "status": 1}, nil); err != nil {
				return err
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.saved.Friends[key] = true
			return nil
		})
	}
	if err := errors.Join(g.Wait(), c.save()); err != nil {
		return fmt.Errorf("make friends: %w", err)
	}
	return nil
}

// Group returns a group of exactly these members, the first of them its owner,
// making it if there is none yet.
func (c *Crowd) Group(ctx context.Context, members []User) (Group, error) {
	for _, g := range c.saved.Groups {
		if sameMembers(g.Members, members) {
			return g, nil
		}
	}
	owner := members[0]
	var made struct {
		ID int64 `json:"id"`
	}
	err := c.api.Call(ctx, owner.Token, http.MethodPost, "/api/groups/store", map[string]any{
		"name": "bench " + strconv.Itoa(len(members)), "info": "benchmark", "avatar": "http://127.0.0.1/bench.png", "theme": "bench", "is_pwd": 0,
	}, &made)
	if err != nil {
		return Group{}, fmt.Errorf("make a group: %w", err)
	}
	out := Group{ID: made.ID, Members: []int64{owner.ID}}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(calling)
	path := "/api/groups/applyJoin/" + strconv.FormatInt(made.ID, 10)
	for _, m := range members[1:] {
		out.Members = append(out.Members, m.ID)
		g.Go(func() error { return c.api.Call(gctx, m.Token, http.MethodPost, path, map[string]any{}, nil) })
	}
	if err := g.Wait(); err != nil {
		return Group{}, fmt.Errorf("join a group: %w", err)
	}
	c.saved.Groups = append(c.saved.Groups, out)
	return out, c.save()
}

func sameMembers(ids []int64, users []User) bool {
	if len(ids) != len(users) {
		return false
	}
	for i := range ids {
		if ids[i] != users[i].ID {
			return false
		}
	}
	return true
}
