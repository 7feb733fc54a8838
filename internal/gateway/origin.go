package gateway

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// parseOrigin normalises an Origin: scheme and host in lower case, the port
// only if it is not the scheme's own. Anything but scheme://host[:port] is no
// origin.
func parseOrigin(s string) (string, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Host == "" || u.Opaque != "" || u.User != nil ||
		u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(s, "#") {
		return "", false
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if strings.HasPrefix(u.Host, "[") {
		ip, err := netip.ParseAddr(host)
		if err != nil || ip.Zone() != "" {
			return "", false
		}
		host = "[" + ip.String() + "]"
	} else if host == "" || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-._") != "" {
		return "", false
	}
	if n, err := strconv.ParseUint(port, 10, 16); strings.HasSuffix(u.Host, ":") || port != "" && (err != nil || n == 0 || port[0] == '0') {
		return "", false
	}
	switch {
	case u.Scheme == "http" && port == "80", u.Scheme == "https" && port == "443":
		port = ""
	}
	if port != "" {
		host += ":" + port
	}
	return strings.ToLower(u.Scheme) + "://" + host, true
}

// origins is an allow-list of exact origins; nil allows any.
type origins map[string]bool

func newOrigins(list []string) origins {
	if len(list) == 0 {
		return nil
	}
	o := origins{}
	for _, s := range list {
		if s == "*" {
			return nil
		}
		if norm, ok := parseOrigin(s); ok {
			o[norm] = true
		}
	}
	return o
}

// allow judges a request's Origin header values. Without one the request is not
// from a page: then it must have proved itself with a header no page can set.
func (o origins) allow(values []string, tokenInHeader bool) bool {
	if o == nil {
		return true
	}
	switch len(values) {
	case 0:
		return tokenInHeader
	case 1:
		norm, ok := parseOrigin(values[0])
		return ok && o[norm]
	}
	return false
}
