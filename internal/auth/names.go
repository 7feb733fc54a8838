package auth

import (
	"errors"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"im-services/internal/names"
)

// The limits of the public contract.
const (
	maxNameRunes     = 50
	minPasswordRunes = 6
	maxPasswordRunes = 128
	maxEmailLen      = 254
)

// maxKeyRunes is what the column of the folded name holds.
const maxKeyRunes = 255

var (
	errName     = errors.New("not a usable name")
	errEmail    = errors.New("not a usable e-mail address")
	errPassword = errors.New("not a usable password")
)

// cleanName returns a display name as it is stored.
func cleanName(raw string) (string, error) {
	name, ok := names.Clean(raw, 1, maxNameRunes)
	if !ok || utf8.RuneCountInString(nameKey(name)) > maxKeyRunes {
		return "", errName
	}
	return name, nil
}

// nameKey folds a clean name: two names with one key are the same name. Folding
// may undo normalisation, hence both twice; joiners do not make a difference.
func nameKey(name string) string {
	key := strings.NewReplacer("\u200c", "", "\u200d", "").Replace(name)
	for range 2 {
		key = norm.NFKC.String(cases.Fold().String(key))
	}
	return strings.Join(strings.Fields(key), " ")
}

// cleanEmail returns an address as it is stored, in lower case: a plain ASCII
// dot-atom at a host name with a dot. Quoted local parts, comments, IP literals
// and everything that could end a mail header are refused.
func cleanEmail(raw string) (string, error) {
	email := strings.TrimSpace(raw)
	local, domain, ok := strings.Cut(email, "@")
	if !ok || len(email) > maxEmailLen || len(local) > 64 || !isDotAtom(local) || !isHostName(domain) {
		return "", errEmail
	}
	return strings.ToLower(email), nil
}

func isDotAtom(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" {
			return false
		}
		for i := range len(atom) {
			if !isAlnum(atom[i]) && !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", rune(atom[i])) {
				return false
			}
		}
	}
	return true
}

func isHostName(s string) bool {
	if len(s) > 253 || !strings.Contains(s, ".") {
		return false
	}
	label := ""
	for label = range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if !isAlnum(label[i]) && label[i] != '-' {
				return false
			}
		}
	}
	return label[0] < '0' || label[0] > '9' // a top-level domain never starts with a digit; an IP address does
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// cleanPassword returns a password as it is hashed: NFC, so that it is the same
// on every keyboard; never cut.
func cleanPassword(raw string) (string, error) {
	if len(raw) > 16*maxPasswordRunes || !utf8.ValidString(raw) {
		return "", errPassword
	}
	p := norm.NFC.String(raw)
	if n := utf8.RuneCountInString(p); n < minPasswordRunes || n > maxPasswordRunes {
		return "", errPassword
	}
	return p, nil
}
