// Package peer says whose request one over HTTP is, by its address.
package peer

import (
	"net/http"
	"net/netip"
	"strings"
)

// IP is the address of the client, or "". X-Forwarded-For counts only as far as
// trusted proxies wrote it: from the right, the first address that is not one of
// theirs.
func IP(r *http.Request, trusted []netip.Prefix) string {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	ip := ap.Addr().Unmap().WithZone("")
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

// Host names what counts as one host: an address, or the /64 of one of IPv6, of
// which any host may take as many addresses as it likes.
func Host(ip string) string {
	addr, err := netip.ParseAddr(ip)
	if err != nil || !addr.Is6() {
		return ip
	}
	household, _ := addr.Prefix(64) // never fails: an address has 128 bits
	return household.String()
}
