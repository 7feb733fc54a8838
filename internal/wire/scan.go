package wire

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// kind is the JSON type of a value.
type kind uint8

const (
	kindAbsent kind = iota
	kindString
	kindInt
	kindFraction // a number with a fraction or an exponent
	kindTrue
	kindFalse
	kindNull
	kindObject
	kindArray
)

// value is a scanned JSON value: its type and where it stands in the input.
type value struct {
	kind    kind
	escaped bool  // string only: holds a backslash
	from    int32 // string: the first byte after the quote
	to      int32 // string: the closing quote
}

// scanner walks over one JSON text without building anything. It accepts
// exactly what RFC 8259 does, less: invalid UTF-8, escapes that stand for half
// a surrogate pair, duplicate keys, nesting beyond MaxDepth and objects with
// more than MaxMembers members.
type scanner struct {
	b   []byte
	pos int
	err string // reason of the first fault, "" while fine
}

const (
	reasonBadJSON      = "frame_invalid"
	reasonDuplicateKey = "frame_key_repeated"
)

func (s *scanner) fail(reason string) {
	if s.err == "" {
		s.err = reason
	}
}

func (s *scanner) space() {
	for s.pos < len(s.b) {
		switch s.b[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the next byte that is not white space, 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.pos < len(s.b) {
		return s.b[s.pos]
	}
	return 0
}

// value scans one value; depth is how many objects and arrays are open.
func (s *scanner) value(depth int) (v value) {
	switch c := s.peek(); {
	case c == '"':
		return s.str()
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	case c == '{':
		v.kind, v.from = kindObject, int32(s.pos)
		s.object(depth + 1)
	case c == '[':
		v.kind, v.from = kindArray, int32(s.pos)
		s.array(depth + 1)
	case c == 't':
		v.kind, v.from = kindTrue, int32(s.pos)
		s.word("true")
	case c == 'f':
		v.kind, v.from = kindFalse, int32(s.pos)
		s.word("false")
	case c == 'n':
		v.kind, v.from = kindNull, int32(s.pos)
		s.word("null")
	default:
		s.fail(reasonBadJSON)
	}
	v.to = int32(s.pos)
	return v
}

func (s *scanner) word(w string) {
	if len(s.b)-s.pos < len(w) || string(s.b[s.pos:s.pos+len(w)]) != w {
		s.fail(reasonBadJSON)
		return
	}
	s.pos += len(w)
}

func (s *scanner) number() value {
	v := value{kind: kindInt, from: int32(s.pos)}
	if s.b[s.pos] == '-' {
		s.pos++
	}
	switch {
	case s.pos < len(s.b) && s.b[s.pos] == '0':
		s.pos++
	case !s.digits():
		s.fail(reasonBadJSON)
		return v
	}
	if s.pos < len(s.b) && s.b[s.pos] == '.' {
		s.pos++
		v.kind = kindFraction
		if !s.digits() {
			s.fail(reasonBadJSON)
			return v
		}
	}
	if s.pos < len(s.b) && (s.b[s.pos] == 'e' || s.b[s.pos] == 'E') {
		s.pos++
		v.kind = kindFraction
		if s.pos < len(s.b) && (s.b[s.pos] == '+' || s.b[s.pos] == '-') {
			s.pos++
		}
		if !s.digits() {
			s.fail(reasonBadJSON)
			return v
		}
	}
	v.to = int32(s.pos)
	return v
}

func (s *scanner) digits() bool {
	from := s.pos
	for s.pos < len(s.b) && '0' <= s.b[s.pos] && s.b[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > from
}

// plain marks the bytes that may stand in a string as they are and need no
// further look (ASCII; longer runes were checked with the whole input).
var plain = func() (t [256]bool) {
	for i := range t {
		t[i] = i >= 0x20 && i != '"' && i != '\\'
	}
	return t
}()

func (s *scanner) str() value {
	s.pos++
	v := value{kind: kindString, from: int32(s.pos)}
	for s.pos < len(s.b) {
		c := s.b[s.pos]
		switch {
		case plain[c]:
			s.pos++
		case c == '"':
			v.to = int32(s.pos)
			s.pos++
			return v
		case c == '\\':
			v.escaped = true
			if !s.escape() {
				s.fail(reasonBadJSON)
				return v
			}
		default: // a bare control character
			s.fail(reasonBadJSON)
			return v
		}
	}
	s.fail(reasonBadJSON)
	return v
}

func (s *scanner) escape() bool {
	if s.pos+1 >= len(s.b) {
		return false
	}
	switch s.b[s.pos+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos += 2
		return true
	case 'u':
		r := hex4(s.b[s.pos+2:])
		if r < 0 {
			return false
		}
		s.pos += 6
		if !utf16.IsSurrogate(r) {
			return true
		}
		if len(s.b)-s.pos < 6 || s.b[s.pos] != '\\' || s.b[s.pos+1] != 'u' {
			return false
		}
		low := hex4(s.b[s.pos+2:])
		if low < 0 || utf16.DecodeRune(r, low) == utf8.RuneError {
			return false
		}
		s.pos += 6
		return true
	}
	return false
}

func hex4(b []byte) rune {
	if len(b) < 4 {
		return -1
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// unescape appends the text of a string value to dst.
func (s *scanner) unescape(dst []byte, v value) []byte {
	b := s.b[v.from:v.to]
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			return append(dst, b...)
		}
		dst = append(dst, b[:i]...)
		b = b[i:]
		switch c := b[1]; c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := hex4(b[2:])
			b = b[6:]
			if utf16.IsSurrogate(r) {
				r = utf16.DecodeRune(r, hex4(b[2:]))
				b = b[6:]
			}
			dst = utf8.AppendRune(dst, r)
			continue
		default:
			dst = append(dst, c)
		}
		b = b[2:]
	}
	return dst
}

// text returns the text of a string value.
func (s *scanner) text(v value) string {
	if !v.escaped {
		return string(s.b[v.from:v.to])
	}
	return string(s.unescape(make([]byte, 0, v.to-v.from), v))
}

// keys remembers the unknown keys of one object, to find duplicates. They are
// compared one by one: MaxMembers keeps that cheap.
type keys []value

func (s *scanner) addKey(k *keys, key value) {
	if len(*k) == MaxMembers {
		s.fail(reasonBadJSON)
		return
	}
	for _, seen := range *k {
		if s.sameText(seen, key) {
			s.fail(reasonDuplicateKey)
			return
		}
	}
	*k = append(*k, key)
}

func (s *scanner) sameText(a, b value) bool {
	if !a.escaped && !b.escaped {
		return bytes.Equal(s.b[a.from:a.to], s.b[b.from:b.to])
	}
	return s.text(a) == s.text(b)
}

// object passes over an object whose content does not matter.
func (s *scanner) object(depth int) {
	var k keys
	s.members(depth, func(key value) {
		s.addKey(&k, key)
		s.value(depth)
	})
}

// members scans an object; member is called with each key, at the value.
func (s *scanner) members(depth int, member func(key value)) {
	if depth > MaxDepth {
		s.fail(reasonBadJSON)
		return
	}
	s.pos++
	if s.peek() == '}' {
		s.pos++
		return
	}
	for s.err == "" {
		if s.peek() != '"' {
			s.fail(reasonBadJSON)
			return
		}
		key := s.str()
		if s.err != "" || s.peek() != ':' {
			s.fail(reasonBadJSON)
			return
		}
		s.pos++
		member(key)
		if s.err != "" {
			return
		}
		switch s.peek() {
		case ',':
			s.pos++
		case '}':
			s.pos++
			return
		default:
			s.fail(reasonBadJSON)
		}
	}
}

func (s *scanner) array(depth int) {
	if depth > MaxDepth {
		s.fail(reasonBadJSON)
		return
	}
	s.pos++
	if s.peek() == ']' {
		s.pos++
		return
	}
	for s.err == "" {
		s.value(depth)
		if s.err != "" {
			return
		}
		switch s.peek() {
		case ',':
			s.pos++
		case ']':
			s.pos++
			return
		default:
			s.fail(reasonBadJSON)
		}
	}
}
