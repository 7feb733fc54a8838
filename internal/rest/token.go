package rest

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// bearer finds the access token of a request: a query token that is not empty
// decides alone, else the Authorization header does. "Bearer " may stand before
// either.
func bearer(r *http.Request) string {
	if t := queryToken(r.URL.RawQuery); t != "" {
		return unprefix(t)
	}
	return unprefix(r.Header.Get("Authorization"))
}

// queryToken reads the parameter without minding what else is in the query.
func queryToken(raw string) string {
	q, _ := url.ParseQuery(raw) // malformed pairs are left out
	return q.Get("token")
}

func unprefix(t string) string {
	t = strings.TrimSpace(t)
	if len(t) >= 7 && strings.EqualFold(t[:7], "bearer ") {
		t = strings.TrimSpace(t[7:])
	}
	return t
}

// peerIP is the address of the client. X-Forwarded-For counts only as far as
// trusted proxies wrote it: from the right, the first address that is not one
// of theirs.
func peerIP(r *http.Request, trusted []netip.Prefix) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	ip := peer.Addr().Unmap().WithZone("")
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && within(ip, trusted); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		ip = hop.Unmap().WithZone("")
	}
	return ip.String()
}

func within(ip netip.Addr, nets []netip.Prefix) bool {
	for _, n := range nets {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}
