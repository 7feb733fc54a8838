package gateway

import (
	"hash/maphash"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"im-services/internal/im"
	"im-services/internal/peer"
	"im-services/internal/seeded"
	"im-services/internal/token"
	"im-services/internal/wire"
)

// subprotocol offered by clients that send their token as the one after it.
const subprotocol = "bearer"

// wsVersion is the one version of the protocol there is (RFC 6455, 4.4).
const wsVersion = "13"

func (s *Server) newUpgrader() websocket.Upgrader {
	return websocket.Upgrader{
		HandshakeTimeout: 10 * time.Second,
		ReadBufferSize:   256, // of gorilla's own reader, which is not used after the handshake
		WriteBufferPool:  &sync.Pool{},
		Subprotocols:     []string{subprotocol},
		CheckOrigin:      func(*http.Request) bool { return true }, // checked before
		Error: func(w http.ResponseWriter, r *http.Request, status int, _ error) {
			if v := r.Header.Get("Sec-WebSocket-Version"); v != "" && v != wsVersion {
				status = http.StatusUpgradeRequired
			}
			w.Header().Set("Sec-WebSocket-Version", wsVersion)
			reject(w, status, s.describe("handshake_invalid").Text)
		},
	}
}

// reject answers a request that does not become a connection.
func reject(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	_, _ = w.Write(wire.AppendUnauthorized(nil, status, text))
}

// ServeHTTP makes a connection of a request to the connect path.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fail := func(status int, reason string) {
		s.m.handshakes.WithLabelValues(reason).Inc()
		reject(w, status, s.describe(reason).Text)
	}
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		fail(http.StatusMethodNotAllowed, "method_not_allowed")
		return
	}
	if s.draining.Load() || s.hub.count.Load() >= int64(s.cfg.MaxConnections) {
		fail(http.StatusServiceUnavailable, "overloaded")
		return
	}
	ip := peer.IP(r, s.cfg.TrustedProxies)
	if !s.rates.allow(ip, s.cfg.ConnectRate, time.Now()) {
		fail(http.StatusTooManyRequests, "rate_limited")
		return
	}
	if s.SleptSince(time.Now().Add(-asleepLeast)) {
		// It may have lain in the socket while its client went elsewhere.
		fail(http.StatusServiceUnavailable, "service_unavailable")
		return
	}
	if !s.identity.ready() {
		fail(http.StatusServiceUnavailable, "service_unavailable")
		return
	}
	if seeded.On(seeded.LogPrintsURL) {
		s.log.Info("connect", "url", r.URL.String())
	}
	raw, inHeader := s.credentials(r)
	if !s.origins.allow(r.Header.Values("Origin"), inHeader) {
		fail(http.StatusForbidden, "origin_refused")
		return
	}
	if raw == "" {
		fail(http.StatusUnauthorized, "unauthorized")
		return
	}
	platform, ok := im.ParsePlatform(r.URL.Query().Get("platform"))
	if !ok {
		fail(http.StatusBadRequest, "platform_invalid")
		return
	}
	claims, err := s.identity.redeem(r.Context(), raw)
	if err != nil {
		switch im.KindOf(err) {
		case im.KindUnavailable, im.KindUnknown, im.KindInternal:
			fail(http.StatusServiceUnavailable, "service_unavailable")
		default:
			fail(http.StatusUnauthorized, "unauthorized")
		}
		return
	}
	// Taken before the client can know that it is connected: what happens after
	// that happens after this.
	made := time.Now().UnixMilli()
	ws, err := s.upgrader.Upgrade(w, r, nil)
	if err != nil {
		s.m.handshakes.WithLabelValues("handshake_invalid").Inc()
		return // the upgrader has answered
	}
	s.m.handshakes.WithLabelValues("ok").Inc()
	s.accept(ws.NetConn(), &claims, platform, ip, made)
}

// accept takes over an upgraded socket. Nothing of net/http nor of gorilla is
// kept: their buffers would cost more than the connection.
func (s *Server) accept(nc net.Conn, claims *token.Claims, platform im.Platform, ip string, madeMS int64) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		_ = nc.Close()
		return
	}
	if t, ok := nc.(interface{ SetWriteBuffer(int) error }); ok {
		_ = t.SetWriteBuffer(s.cfg.SocketBuffer)
	}
	now := s.now()
	c := &conn{
		s: s, nc: nc, id: im.ConnID(s.connIDs.Add(1)), user: claims.UserID, platform: platform,
		ip: ip,
		who: identityOf{
			name: claims.Name, email: claims.Email, session: claims.SessionID,
			avatar:   wire.AvatarURL(s.deps.PublicURL, claims.Avatar, claims.UserID),
			issuedAt: claims.IssuedAt.Unix(), expires: now + time.Until(claims.ExpiresAt) + token.DefaultLeeway,
		},
		tokens: float64(s.cfg.FrameBurst), tokensAt: now,
	}
	if t, ok := nc.(syscall.Conn); ok {
		c.raw, _ = t.SyscallConn() // without one there is a slower way
	}
	c.sinceMS.Store(madeMS)
	c.in.src = c
	c.heard.Store(int64(now))
	s.hub.add(c)
	s.wg.Go(c.read)
	c.mu.Lock()
	c.syncLocked("connect")
	c.mu.Unlock()
	switch {
	case s.draining.Load():
		c.closeWith(wire.CloseRestart, nil)
	case s.identity.revoked(claims):
		// Revoked while we shook hands.
		c.closeWith(wire.CloseReplaced, nil)
	}
}

// credentials finds what the client proves itself with. A query token decides
// alone; inHeader tells that a page could not have made the request.
func (s *Server) credentials(r *http.Request) (raw string, inHeader bool) {
	if q := r.URL.Query().Get("token"); q != "" {
		q = trimBearer(q)
		if s.cfg.RefuseQueryTokens && strings.Contains(q, ".") {
			return "", false
		}
		return q, false
	}
	if h := r.Header.Get("Authorization"); h != "" {
		return trimBearer(h), true
	}
	offered := websocket.Subprotocols(r)
	if len(offered) == 2 && offered[0] == subprotocol {
		return offered[1], true
	}
	return "", false
}

func trimBearer(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > 7 && strings.EqualFold(s[:7], "bearer ") {
		return strings.TrimSpace(s[7:])
	}
	return s
}

// connectRates counts new connections per host and minute. Hosts with one hash share
// a counter, so there is nothing to fill up; nobody can tell whom he shares with.
type connectRates struct {
	mu     sync.Mutex // guards the following fields
	minute int64
	seed   maphash.Seed
	counts []int
}

// rateCounters is so many that connections of some 10,000 hosts in a minute are
// hardly ever added up.
const rateCounters = 1 << 16

func (c *connectRates) allow(ip string, limit int, now time.Time) bool {
	if limit <= 0 {
		return true
	}
	minute := now.Unix() / 60
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.seed, c.counts = maphash.MakeSeed(), make([]int, rateCounters)
	}
	if c.minute != minute {
		c.minute = minute
		clear(c.counts)
	}
	n := &c.counts[maphash.String(c.seed, peer.Host(ip))%rateCounters]
	*n++
	return *n <= limit
}

func closeLabel(code wire.CloseCode) string {
	if code.Text() == "" {
		return "other"
	}
	return strconv.Itoa(int(code))
}
