package auth

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/text/unicode/norm"

	"im-services/internal/im"
)

const (
	// maxGetUsers bounds one call of GetUsers.
	maxGetUsers = 1000
	// The bounds of one search.
	maxSearchQuery   = maxEmailLen
	maxSearchExclude = 10_000
	defaultSearch    = 10
	maxSearch        = 50
)

// profiles remembers users for a short time: clients ask for the sender's
// profile at every frame. Safe for concurrent use.
type profiles struct {
	ttl   time.Duration
	cache *lru.Cache[im.UserID, profile]
}

type profile struct {
	account account
	at      time.Time
}

func newProfiles(size int, ttl time.Duration) *profiles {
	cache, err := lru.New[im.UserID, profile](size)
	if err != nil {
		panic(err) // Config.Validate wants a positive size
	}
	return &profiles{ttl: ttl, cache: cache}
}

func (p *profiles) get(id im.UserID) (account, bool) {
	e, ok := p.cache.Get(id)
	if !ok || time.Since(e.at) >= p.ttl {
		return account{}, false
	}
	return e.account, true
}

func (p *profiles) put(a account, at time.Time) {
	a.Password = "" // a cache of profiles has no business with it
	p.cache.Add(a.ID, profile{a, at})
}

func (p *profiles) drop(id im.UserID) { p.cache.Remove(id) }

func (s *Server) getUsers(ctx context.Context, ids []int64) ([]account, error) {
	if len(ids) > maxGetUsers {
		return nil, im.E(im.KindInvalid, "auth_too_many_ids", nil)
	}
	found := make([]account, 0, len(ids))
	seen := make(map[im.UserID]bool, len(ids))
	var missing []im.UserID
	for _, raw := range ids {
		id := im.UserID(raw)
		if !id.Valid() || seen[id] {
			continue
		}
		seen[id] = true
		if a, ok := s.profiles.get(id); ok {
			found = append(found, a)
		} else {
			missing = append(missing, id)
		}
	}
	at := time.Now()
	read, err := s.store.accountsByID(ctx, missing)
	if err != nil {
		return nil, err
	}
	for _, a := range read {
		s.profiles.put(a, at)
	}
	return append(found, read...), nil
}

func (s *Server) searchUsers(ctx context.Context, query string, exclude []int64, limit int) ([]account, error) {
	query = strings.TrimSpace(query)
	if len(exclude) > maxSearchExclude {
		return nil, im.E(im.KindInvalid, "auth_too_many_ids", nil)
	}
	if len(query) > maxSearchQuery || !utf8.ValidString(query) || strings.ContainsRune(query, 0) {
		return nil, nil // no e-mail and no name begins like that
	}
	if limit <= 0 {
		limit = defaultSearch
	}
	limit = min(limit, maxSearch)
	skip := make(map[im.UserID]bool, len(exclude))
	for _, id := range exclude {
		skip[im.UserID(id)] = true
	}
	email, key := strings.ToLower(query), nameKey(norm.NFC.String(query))
	if query != "" && key == "" {
		return nil, nil // nothing but joiners: it would match everybody
	}
	// Whom to skip is sorted out here: a list of thousands in the query would
	// cost more than reading that many rows too many.
	rows, err := s.store.search(ctx, email, key, limit+len(skip))
	if err != nil {
		return nil, err
	}
	found := rows[:0]
	for _, a := range rows {
		if !skip[a.ID] && len(found) < limit {
			found = append(found, a)
		}
	}
	return found, nil
}
