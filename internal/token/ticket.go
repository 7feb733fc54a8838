package token

import (
	"encoding/base64"
	"strings"
)

// TicketBytes is how many random bytes a socket ticket spells, in base64url
// without padding.
const TicketBytes = 32

// IsTicket reports whether s has the form of a ticket: what has not need not be
// looked up. No token has it, tokens hold dots.
func IsTicket(s string) bool {
	// The decoder would pass over line breaks.
	if len(s) != base64.RawURLEncoding.EncodedLen(TicketBytes) || strings.ContainsAny(s, "\r\n") {
		return false
	}
	_, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil
}
