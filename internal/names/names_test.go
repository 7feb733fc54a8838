package names

import (
	"strings"
	"testing"
)

func TestClean(t *testing.T) {
	for raw, want := range map[string]string{
		"  two words ": "two words", "cafe\u0301": "café", "小艾": "小艾", "👩\u200d💻 dev": "👩\u200d💻 dev",
	} {
		if got, ok := Clean(raw, 2, 20); !ok || got != want {
			t.Errorf("%q: %q, %t", raw, got, ok)
		}
	}
	for what, raw := range map[string]string{
		"short": "a", "long": strings.Repeat("名", 21), "zero width": "\u200b\u200b", "line separator": "a\u2028b", "turned around": "a\u202eb",
		"NUL": "a\x00b", "nothing to see": "\u2800\u2800", "accents only": "\u0301\u0301", "not UTF-8": "a\xffb",
	} {
		if got, ok := Clean(raw, 2, 20); ok {
			t.Errorf("%s: accepted %q", what, got)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("Alice")
	f.Add("cafe\u0301 \u200d")
	f.Fuzz(func(t *testing.T, raw string) {
		name, ok := Clean(raw, 1, 50)
		if !ok {
			return
		}
		if again, ok := Clean(name, 1, 50); !ok || again != name {
			t.Errorf("%q is stored as %q and read as %q, %t", raw, name, again, ok)
		}
	})
}
