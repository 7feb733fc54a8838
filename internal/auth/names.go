package auth

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
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

// cleanName returns a display name as it is stored: trimmed, in NFC, 1..50
// runes, none of which hides, breaks the line or turns the direction of text.
func cleanName(raw string) (string, error) {
	if len(raw) > 16*maxNameRunes || !utf8.ValidString(raw) {
		return "", errName
	}
	name := norm.NFC.String(strings.TrimSpace(raw))
	if n := utf8.RuneCountInString(name); n < 1 || n > maxNameRunes {
		return "", errName
	}
	visible := false
	for _, r := range name {
		if hidden(r) {
			return "", errName
		}
		visible = visible || (r != ' ' && unicode.IsPrint(r) && !unicode.Is(unicode.M, r) && !blank(r))
	}
	if !visible || utf8.RuneCountInString(nameKey(name)) > maxKeyRunes {
		return "", errName
	}
	return name, nil
}

// hidden reports whether r must not be in a name: controls, format characters
// (all bidi controls are among them), line and paragraph separators, private
// use, unassigned. The joiners are needed by Persian, Indic scripts and emoji.
func hidden(r rune) bool {
	const zwnj, zwj = '\u200c', '\u200d'
	if r == zwnj || r == zwj {
		return false
	}
	return unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) || !assigned(r)
}

func assigned(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z, unicode.C)
}

// blank reports whether r is a letter or symbol that draws nothing.
func blank(r rune) bool {
	switch r {
	case '\u115f', '\u1160', '\u3164', '\uffa0', '\u2800':
		return true
	}
	return false
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
