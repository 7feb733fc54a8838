package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"im-services/internal/wire"
)

// parseJSON reads parameters from a JSON object. It is stricter than
// encoding/json: no duplicate keys at any depth, no deep nesting, no invalid
// UTF-8 and no escapes of half a character, which encoding/json would replace.
func parseJSON(raw []byte, room int) (*form, error) {
	if err := checkJSON(raw, room); err != nil {
		return nil, malformed(err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		return nil, malformed(errors.New("not a JSON object"))
	}
	f := newForm(room)
	for name, raw := range members {
		if raw[0] == 'n' {
			continue // null is no value
		}
		f.values[name] = []value{jsonValue(raw)}
	}
	return f, nil
}

// jsonValue classifies a value that is known to be valid JSON.
func jsonValue(raw json.RawMessage) value {
	switch c := raw[0]; {
	case c == '"':
		var s string
		_ = json.Unmarshal(raw, &s) // valid, see above
		return value{src: fromString, text: s}
	case c == '-' || c >= '0' && c <= '9':
		return value{src: fromNumber, text: string(raw)}
	case c == 't':
		return value{src: fromBool, text: "1"}
	case c == 'f':
		return value{src: fromBool, text: "0"}
	}
	return value{src: fromOther, text: string(raw)}
}

// jsonArray splits a JSON array of scalars into its elements.
func jsonArray(text string) ([]value, error) {
	if strings.Count(text, ",") >= maxListItems {
		return nil, errTooMany
	}
	var raws []json.RawMessage
	if err := json.Unmarshal([]byte(text), &raws); err != nil {
		return nil, err
	}
	out := make([]value, 0, len(raws))
	for _, raw := range raws {
		out = append(out, jsonValue(raw))
	}
	return out, nil
}

// objects decodes a list of objects: a JSON array, or text that holds one.
// Members T does not know are refused.
func objects[T any](f *form, name string) []T {
	v, ok := f.get(name)
	if !ok || v.text == "" {
		return nil
	}
	if v.src != fromOther {
		if err := checkJSON([]byte(v.text), maxListItems); err != nil {
			f.refuse("body_invalid")
			return nil
		}
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(v.text)))
	dec.DisallowUnknownFields()
	var out []T
	if err := dec.Decode(&out); err != nil || len(out) > maxListItems {
		f.refuse("body_invalid")
		return nil
	}
	return out
}

// checkJSON checks that raw is exactly one JSON value, in the strict sense, and that
// no object or array in it has more than room members.
func checkJSON(raw []byte, room int) error {
	if !utf8.Valid(raw) {
		return errors.New("not UTF-8")
	}
	if halfSurrogate(raw) {
		return errors.New("an escape stands for half a character")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := checkValue(dec, 1, room); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the value")
	}
	return nil
}

func checkValue(dec *json.Decoder, depth, room int) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	open, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	if depth > wire.MaxDepth {
		return errors.New("nested too deep")
	}
	seen := map[string]bool{}
	for n := 0; dec.More(); n++ {
		if n == room {
			return errTooMany
		}
		if open == '{' {
			tok, err := dec.Token()
			if err != nil {
				return err
			}
			key, _ := tok.(string)
			if seen[key] {
				return errors.New("duplicate key")
			}
			seen[key] = true
		}
		if err := checkValue(dec, depth+1, room); err != nil {
			return err
		}
	}
	_, err = dec.Token() // the closing bracket
	return err
}

// halfSurrogate reports whether raw escapes one half of a surrogate pair
// without the other. Backslashes stand in strings only, in valid JSON; what is
// not valid is found later.
func halfSurrogate(raw []byte) bool {
	unit := func(i int) (uint64, bool) {
		if i+6 > len(raw) || raw[i] != '\\' || raw[i+1] != 'u' {
			return 0, false
		}
		n, err := strconv.ParseUint(string(raw[i+2:i+6]), 16, 16)
		return n, err == nil
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		n, ok := unit(i)
		switch {
		case !ok:
			i++ // some other escape: skip what it escapes
		case n >= 0xd800 && n < 0xdc00:
			low, ok := unit(i + 6)
			if !ok || low < 0xdc00 || low > 0xdfff {
				return true
			}
			i += 11
		case n >= 0xdc00 && n <= 0xdfff:
			return true
		default:
			i += 5
		}
	}
	return false
}
