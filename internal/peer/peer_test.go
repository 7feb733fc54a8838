package peer

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIP(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, tt := range []struct{ remote, forwarded, want string }{
		{"203.0.113.9:1234", "", "203.0.113.9"},
		{"203.0.113.9:1234", "1.1.1.1", "203.0.113.9"},
		{"10.1.1.1:1", "1.1.1.1", "1.1.1.1"},
		{"10.1.1.1:1", "6.6.6.6, 1.1.1.1", "1.1.1.1"},
		{"10.1.1.1:1", "6.6.6.6, 1.1.1.1, 10.2.2.2", "1.1.1.1"},
		{"10.1.1.1:1", "not an address", "10.1.1.1"},
		{"10.1.1.1:1", "", "10.1.1.1"},
		{"[::1]:1", "2001:db8::7", "2001:db8::7"},
		{"[::ffff:10.1.1.1]:1", "1.1.1.1", "1.1.1.1"},
		{"", "1.1.1.1", ""},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = tt.remote
		if tt.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		require.Equal(t, tt.want, IP(r, trusted), "%+v", tt)
		if tt.remote != "" {
			require.NotEqual(t, "1.1.1.1", IP(r, nil), "nobody is believed")
		}
	}
}

func TestHost(t *testing.T) {
	require.Equal(t, "203.0.113.9", Host("203.0.113.9"))
	require.Equal(t, Host("2001:db8::1"), Host("2001:db8::2"))
	require.NotEqual(t, Host("2001:db8::1"), Host("2001:db8:0:1::1"))
	require.Empty(t, Host(""))
}
