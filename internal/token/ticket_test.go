package token

import (
	"encoding/base64"
	"strings"
	"testing"
)

func TestIsTicket(t *testing.T) {
	for s, want := range map[string]bool{
		base64.RawURLEncoding.EncodeToString(make([]byte, TicketBytes)): true,
		strings.Repeat("-_aZ", 10) + "09A":                              true,
		"":                                                              false,
		"null":                                                          false,
		strings.Repeat("a", 42):                                         false,
		strings.Repeat("a", 44):                                         false,
		strings.Repeat("a", 42) + "B":                                   false, // bits that say nothing are set
		strings.Repeat("a", 42) + "=":                                   false,
		strings.Repeat("a", 42) + "+":                                   false,
		strings.Repeat("a", 41) + "\nA":                                 false,
		strings.Repeat("a", 20) + "." + strings.Repeat("a", 22): false,
		"Bearer " + strings.Repeat("a", 36):                     false,
	} {
		if got := IsTicket(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}
