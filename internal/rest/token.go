package rest

import (
	"net/http"
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
