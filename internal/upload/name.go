package upload

import (
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gabriel-vasile/mimetype"
)

// Limits of a file's name, in bytes.
const (
	maxStem      = 120
	maxExtension = 16
)

// safeName makes the last segment of a URL of what a sender called his file: no
// directories, nothing that hides or reverses text, an extension in lower case
// (clients tell pictures by it). Without an extension it gets that of the type.
func safeName(name string, kind *mimetype.MIME) string {
	name = strings.ToValidUTF8(name, "_")
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r):
			return -1
		case strings.ContainsRune(`:*?"<>|#%&;`, r):
			return '_'
		}
		return r
	}, name)
	name = strings.TrimRight(strings.TrimLeft(name, " "), " .")
	ext := strings.ToLower(path.Ext(name))
	stem := strings.Trim(strings.TrimSuffix(name, name[len(name)-len(path.Ext(name)):]), " .")
	if len(ext) < 2 || len(ext) > maxExtension || strings.ContainsFunc(ext[1:], notAlphanumeric) {
		if len(ext) > 1 {
			stem = strings.Trim(name, " .")
		}
		ext = kind.Extension()
		if ext == "" {
			ext = ".bin"
		}
	}
	if stem = strings.Trim(cut(stem, maxStem), " ."); stem == "" {
		stem = "file"
	}
	return stem + ext
}

func notAlphanumeric(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9')
}

// cut shortens s to at most n bytes, at a character's end.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
