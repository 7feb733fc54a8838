// Package names says which texts may stand where people read who or what
// something is: beside messages, in lists.
package names

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Clean returns a name as it is stored: trimmed, in NFC, least..most characters,
// something to see among them and none of which hides, breaks the line or turns the
// direction of text. It reports whether raw is such a name.
func Clean(raw string, least, most int) (string, bool) {
	if len(raw) > 16*most || !utf8.ValidString(raw) {
		return "", false
	}
	name := norm.NFC.String(strings.TrimSpace(raw))
	if n := utf8.RuneCountInString(name); n < least || n > most {
		return "", false
	}
	visible := false
	for _, r := range name {
		if Hidden(r) {
			return "", false
		}
		visible = visible || (r != ' ' && unicode.IsPrint(r) && !unicode.Is(unicode.M, r) && !blank(r))
	}
	return name, visible
}

// Hidden reports whether r must not be in a name: controls, format characters
// (all bidi controls are among them), line and paragraph separators, private
// use, unassigned. The joiners are needed by Persian, Indic scripts and emoji.
func Hidden(r rune) bool {
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
