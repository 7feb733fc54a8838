package auth

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/unicode/norm"
)

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"abc": "abc", "  abc \t": "abc", "小明": "小明", "a b": "a b", "e\u0301": "é", "👨\u200d👩\u200d👧": "👨\u200d👩\u200d👧", "می\u200cخواهم": "می\u200cخواهم",
		"null": "null", "<script>alert(1)</script>": "<script>alert(1)</script>", "%_'\"\\;--": "%_'\"\\;--",
		strings.Repeat("名", 50): strings.Repeat("名", 50),
	} {
		got, err := cleanName(in)
		require.NoError(t, err, "%q", in)
		require.Equal(t, want, got)
	}
	for name, in := range map[string]string{
		"empty": "", "blanks": "   ", "51 runes": strings.Repeat("名", 51), "NUL": "a\x00b", "line break": "a\nb", "escape": "a\x1bb",
		"bidi override": "a\u202eb", "bidi isolate": "a\u2066b", "right-to-left mark": "a\u200fb", "zero width space": "a\u200bb",
		"joiners only": "\u200d\u200d", "BOM": "\ufeffa", "line separator": "a\u2028b", "private use": "a\ue000b", "not UTF-8": "a\xff",
		"Hangul filler": "\u3164", "Braille blank": "\u2800", "accents only": "\u0301\u0301", "tag characters": "a\U000e0041",
		"soft hyphen": "a\u00adb", "huge": strings.Repeat("a", 1<<20), "unassigned": "a\U000e0fff",
	} {
		_, err := cleanName(in)
		require.Error(t, err, name)
	}
}

func TestNameKey_FoldsWhatLooksTheSame(t *testing.T) {
	for _, group := range [][]string{
		{"Alice", "alice", "ALICE", "Ａｌｉｃｅ", "alice\u200d"}, {"straße", "STRASSE"}, {"é", "e\u0301", "É"}, {"a  b", "a b", "A\u3000B"},
	} {
		for _, n := range group {
			require.Equal(t, nameKey(group[0]), nameKey(n), "%q and %q", group[0], n)
		}
	}
	require.NotEqual(t, nameKey("😀"), nameKey("😁"))
	require.NotEqual(t, nameKey("alice"), nameKey("alíce"))
}

func TestCleanEmail(t *testing.T) {
	for in, want := range map[string]string{
		"abc123@example.com": "abc123@example.com", " ABC@Example.COM ": "abc@example.com", "a.b+c@x-y.example.org": "a.b+c@x-y.example.org",
		"a'b@example.com": "a'b@example.com", "a@b.c1": "a@b.c1",
	} {
		got, err := cleanEmail(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got)
	}
	for _, in := range []string{
		"", "a", "@", "a@", "@example.com", "a@b", "a@@example.com", "a@example.com@example.com", "a b@example.com", "a@exa mple.com",
		"a@example.com\r\nBcc: x@example.com", "a\n@example.com", "a@example.com\x00", "\"a\"@example.com", "a@[127.0.0.1]", "a@127.0.0.1",
		"a..b@example.com", ".a@example.com", "a.@example.com", "a@.example.com", "a@example..com", "a@example.com.", "a@-example.com",
		"a@example-.com", "<a@example.com>", "A <a@example.com>", "a,b@example.com", "a@example.com,b@example.com", "ä@example.com",
		"a@exämple.com", "a\u202e@example.com", "a;b@example.com", "a(b)@example.com", "a@example.com>", "null", "undefined",
		strings.Repeat("a", 65) + "@example.com", "a@" + strings.Repeat("a", 64) + ".com", "a@" + strings.Repeat("a.", 130) + "com",
		strings.Repeat("a", 1<<20) + "@example.com",
	} {
		_, err := cleanEmail(in)
		require.Error(t, err, "%.60q", in)
	}
}

func TestCleanPassword_NeverCut(t *testing.T) {
	for _, in := range []string{"123456", strings.Repeat("密", 128), " leading and trailing ", "tab\tand\x00nul"} {
		got, err := cleanPassword(in)
		require.NoError(t, err)
		require.Equal(t, in, got)
	}
	decomposed, err := cleanPassword("cafe\u0301s!")
	require.NoError(t, err)
	require.Equal(t, "cafés!", decomposed, "one password on every keyboard")
	for _, in := range []string{"", "12345", strings.Repeat("a", 129), strings.Repeat("a", 1<<20), "abcde\xff"} {
		_, err := cleanPassword(in)
		require.Error(t, err, "%d bytes", len(in))
	}
}

func FuzzCleanName(f *testing.F) {
	for _, s := range []string{"abc", " 小明 ", "a\u202eb", "e\u0301", "\u200d", "Ａ", "\xff", "ﷺﷺﷺ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		name, err := cleanName(raw)
		if err != nil {
			return
		}
		n := utf8.RuneCountInString(name)
		if n < 1 || n > maxNameRunes || len(name) > 64*4 || !utf8.ValidString(name) || !norm.NFC.IsNormalString(name) || strings.TrimSpace(name) != name {
			t.Fatalf("accepted %q from %q", name, raw)
		}
		for _, r := range name {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Fatalf("accepted %q", name)
			}
		}
		if again, err := cleanName(name); err != nil || again != name {
			t.Fatalf("not stable: %q then %q, %v", name, again, err)
		}
		key := nameKey(name)
		if key == "" || utf8.RuneCountInString(key) > maxKeyRunes || nameKey(key) != key {
			t.Fatalf("bad key %q of %q (again %q)", key, name, nameKey(key))
		}
	})
}

func FuzzCleanEmail(f *testing.F) {
	for _, s := range []string{"a@example.com", "A.B+c@x-y.Org", "a@b", "a\r\n@b.c", "\"x\"@y.z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		email, err := cleanEmail(raw)
		if err != nil {
			return
		}
		if len(email) > maxEmailLen || email != strings.ToLower(email) || strings.Count(email, "@") != 1 ||
			strings.ContainsAny(email, " \t\r\n\x00<>,;:\"()[]\\") {
			t.Fatalf("accepted %q", email)
		}
		for i := range len(email) {
			if email[i] <= ' ' || email[i] > '~' {
				t.Fatalf("accepted %q", email)
			}
		}
		if again, err := cleanEmail(email); err != nil || again != email {
			t.Fatalf("not stable: %q then %q, %v", email, again, err)
		}
	})
}
