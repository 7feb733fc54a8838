package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"time"

	"im-services/internal/im"
)

// networkFactor is how many times the allowance of one address its network has.
const networkFactor = 4

// usersFactor is how many times the allowance of one user an address has: that many
// may be busy behind it.
const usersFactor = 10

// limitPeer counts an event of an address and of its network. An address that
// cannot be parsed shares one allowance with all such.
func (s *Server) limitPeer(ctx context.Context, event, peer string, n int, window time.Duration) error {
	addr, host, network := locate(peer)
	for _, exempt := range s.cfg.Limits.Exempt {
		if exempt.Contains(addr) {
			return nil
		}
	}
	wait := s.limits.take(ctx, event+":host:"+host, n, window)
	if wait == 0 {
		wait = s.limits.take(ctx, event+":net:"+network, networkFactor*n, window)
	}
	if wait > 0 {
		s.log.LogAttrs(ctx, slog.LevelWarn, "address limited", slog.String("event", event), slog.String("network", network))
		return tooOften("auth_too_often", wait)
	}
	return nil
}

// locate returns an address with the names of what counts as one host and of its
// network. The address is not valid if it cannot be parsed.
func locate(peer string) (addr netip.Addr, host, network string) {
	addr, err := netip.ParseAddr(peer)
	if err != nil {
		return netip.Addr{}, "unknown", "unknown"
	}
	addr = addr.Unmap().WithZone("")
	one, many := 32, 24
	if addr.Is6() {
		one, many = 64, 48 // a household has a /64, a site a /48
	}
	return addr, masked(addr, one), masked(addr, many)
}

// place stands for the network of an address, as pseudonym does for an e-mail
// address; nil if it cannot be told.
func (s *Server) place(peer string) []byte {
	addr, _, network := locate(peer)
	if !addr.IsValid() {
		return nil
	}
	return s.mac("place", network)[:placeSize]
}

// attemptsKey is what attempts to prove the password of an account count under:
// those from a place where its owner has been by themselves, all others together.
// So nobody who guesses elsewhere locks him out there.
func (s *Server) attemptsKey(ctx context.Context, email string, user im.UserID, place []byte) (string, error) {
	who := s.pseudonym(email)
	known, err := s.store.placeKnown(ctx, user, place)
	if err != nil || !known {
		return who, err
	}
	return placeKey(who, place), nil
}

func placeKey(who string, place []byte) string { return who + ":" + hex.EncodeToString(place) }

func masked(a netip.Addr, bits int) string {
	p, err := a.Prefix(bits)
	if err != nil {
		return "unknown"
	}
	return p.String()
}

func tooOften(reason string, wait time.Duration) error {
	return &im.Error{Kind: im.KindExhausted, Reason: reason, RetryAfter: wait}
}

// pseudonym stands for an e-mail address in Redis keys. Without the key, which
// is in MySQL, it cannot be computed from the address.
func (s *Server) pseudonym(email string) string {
	return hex.EncodeToString(s.mac("email", email)[:16])
}

// mac returns a keyed hash of text for one use.
func (s *Server) mac(use, text string) []byte {
	h := hmac.New(sha256.New, s.secret)
	h.Write([]byte(use + "\x00" + text))
	return h.Sum(nil)
}
