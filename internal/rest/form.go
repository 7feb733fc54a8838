package rest

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"im-services/internal/im"
	"im-services/internal/wire"
)

// maxListItems bounds the elements of a list parameter, maxParameters the other
// parameters of a request. What is made of either takes many times its bytes.
const (
	maxListItems  = 10_000
	maxParameters = 100
)

// openBody is the largest body of a request that needs no login, in bytes.
const openBody = 64 << 10

// source says how a value was written, which decides what it may stand for.
type source uint8

const (
	fromText   source = iota // a form field or a query parameter: always text
	fromString               // a JSON string
	fromNumber               // a JSON number
	fromBool                 // true or false in JSON, as the 1 and 0 of the forms
	fromOther                // any other JSON value
)

// value is one occurrence of a parameter.
type value struct {
	src  source
	text string // fromText, fromString: the text; fromBool: 1 or 0; else the JSON as it was written
}

// form is the parameters of a request, whatever encoding they came in. Its
// readers remember the first fault, so that a handler reads all it needs and
// asks once: a reader that failed returns a zero value.
type form struct {
	values map[string][]value
	room   int // how many more may come
	fault  error
}

func newForm(room int) *form { return &form{values: map[string][]value{}, room: room} }

// form reads the request's body. POST and PUT bodies may be multipart, url
// encoded or JSON; no body at all means no parameters.
func (c *call) form() (*form, error) {
	limit, room := c.Config.BodyLimit, maxParameters+maxListItems
	if c.me == 0 {
		limit, room = min(limit, openBody), maxParameters // nor is there a list
	}
	b := newBody(c.w, c.r, limit)
	b.room = c.hold
	f, err := parseBody(b, c.r.Header.Get("Content-Type"), room)
	if b.err != nil && !errors.Is(b.err, io.EOF) {
		err = b.err // the cause of whatever the decoder made of it
	}
	switch im.ReasonOf(err) {
	case "body_too_large", "bodies_busy":
		c.forget()
		b.drain()
	}
	if err == nil {
		err = c.stillMe()
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// query reads the parameters of a GET.
func (c *call) query() (*form, error) { return parseQuery(c.r.URL.RawQuery, maxParameters) }

func malformed(cause error) error { return im.E(im.KindInvalid, "body_invalid", cause) }

var errTooMany = errors.New("too many parameters, or too long a list")

func parseQuery(raw string, room int) (*form, error) {
	if strings.Count(raw, "&") > room {
		return nil, malformed(errTooMany)
	}
	// A semicolon is text (WHATWG URL standard); to net/url it is an error.
	pairs, err := url.ParseQuery(strings.ReplaceAll(raw, ";", "%3B"))
	if err != nil {
		return nil, malformed(err)
	}
	f := newForm(room)
	for name, texts := range pairs {
		for _, text := range texts {
			if err := f.add(name, text); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

// parseBody reads parameters, at most room of them, from a body of the given
// Content-Type.
func parseBody(src io.Reader, contentType string, room int) (*form, error) {
	kind, params, err := mime.ParseMediaType(contentType)
	if err == nil && kind == "multipart/form-data" && params["boundary"] != "" {
		return parseMultipart(src, params["boundary"], room)
	}
	raw, readErr := io.ReadAll(src) // src is limited
	if readErr != nil {
		return nil, malformed(readErr)
	}
	if len(raw) == 0 {
		return newForm(room), nil
	}
	switch {
	case contentType == "":
		if t := bytes.TrimLeft(raw, " \t\r\n"); len(t) > 0 && t[0] == '{' {
			return parseJSON(raw, room)
		}
		return parseQuery(string(raw), room)
	case err != nil:
		return nil, malformed(err)
	case kind == "application/x-www-form-urlencoded":
		return parseQuery(string(raw), room)
	case kind == "application/json" || strings.HasSuffix(kind, "+json"):
		return parseJSON(raw, room)
	}
	return nil, malformed(errors.New("unsupported content type"))
}

// parseMultipart reads the text parts of a multipart body; files are passed
// over. It is not ParseMultipartForm, which limits a body to 1,000 parts: a
// group may be made with more members than that.
func parseMultipart(src io.Reader, boundary string, room int) (*form, error) {
	f := newForm(room)
	src, empty, err := peek(src)
	if err != nil {
		return nil, malformed(err)
	}
	if empty {
		return f, nil
	}
	parts := multipart.NewReader(src, boundary)
	for {
		part, err := parts.NextPart()
		if err == io.EOF { //nolint:errorlint // wrapped, it means that the closing boundary is missing
			return f, nil
		}
		if err != nil {
			return nil, malformed(err)
		}
		name := part.FormName()
		if name == "" || part.FileName() != "" {
			continue
		}
		text, err := io.ReadAll(part)
		if err != nil {
			return nil, malformed(err)
		}
		if err := f.add(name, string(text)); err != nil {
			return nil, err
		}
	}
}

// peek reports whether there is nothing to read, without losing what there is.
func peek(src io.Reader) (io.Reader, bool, error) {
	var first [1]byte
	_, err := io.ReadFull(src, first[:])
	if errors.Is(err, io.EOF) {
		return src, true, nil
	}
	return io.MultiReader(bytes.NewReader(first[:]), src), false, err
}

func (f *form) add(name, text string) error {
	if !utf8.ValidString(text) || !utf8.ValidString(name) {
		return malformed(errors.New("not UTF-8"))
	}
	if f.room == 0 {
		return malformed(errTooMany)
	}
	f.room--
	f.values[name] = append(f.values[name], value{text: text})
	return nil
}

func (f *form) refuse(reason string) {
	if f.fault == nil {
		f.fault = refuse(reason)
	}
}

// err is the first fault the readers met.
func (f *form) err() error { return f.fault }

// get returns the first occurrence of a parameter; a later one is passed over.
func (f *form) get(name string) (value, bool) {
	if vs := f.values[name]; len(vs) > 0 {
		return vs[0], true
	}
	return value{}, false
}

// has reports whether a parameter is there, be it empty.
func (f *form) has(name string) bool {
	_, ok := f.get(name)
	return ok
}

// text reads a text parameter, "" if absent. JSON numbers are taken for the
// text they are written as: codes and passwords look like numbers.
func (f *form) text(name string) string {
	v, ok := f.get(name)
	if ok && (v.src == fromOther || v.src == fromBool) {
		f.refuse("parameter_type_invalid")
		return ""
	}
	return v.text
}

// textOr is text that must not be empty, else reason is the fault.
func (f *form) textOr(name, reason string) string {
	s := f.text(name)
	if s == "" {
		f.refuse(reason)
	}
	return s
}

// absent tells the spellings of "no value" that web clients produce.
func absent(text string) bool { return text == "" || text == "null" || text == "undefined" }

// id reads a required id.
func (f *form) id(name string) int64 {
	v, _ := f.get(name)
	n, ok := asID(v)
	if !ok {
		f.refuse("id_invalid")
	}
	return n
}

// optionalID reads an id, 0 if absent. "null" is no id, not an absent one.
func (f *form) optionalID(name string) int64 {
	if v, ok := f.get(name); !ok || v.text == "" {
		return 0
	}
	return f.id(name)
}

func asID(v value) (int64, bool) {
	if v.src == fromOther || v.src == fromBool {
		return 0, false
	}
	n, ok := wire.ParseInt(v.text)
	if !ok || n <= 0 || n > im.MaxID {
		return 0, false
	}
	return n, true
}

// number reads an integer in from..to, def if absent; anything else has the
// reason for its fault.
func (f *form) number(name string, def, from, to int64, reason string) int64 {
	v, ok := f.get(name)
	if !ok || absent(v.text) {
		return def
	}
	n, ok := wire.ParseInt(v.text)
	if !ok || v.src == fromOther || n < from || n > to {
		f.refuse(reason)
		return 0
	}
	return n
}

// ids reads a list of ids written as name[] or name repeated, name[0], or a
// JSON array under name or name[]; without duplicates, in the order given.
func (f *form) ids(name string) []int64 {
	var all []value
	all = append(all, f.values[name+"[]"]...)
	all = append(all, f.values[name]...)
	all = append(all, f.indexed(name)...)
	var out []int64
	seen := map[int64]bool{}
	for _, v := range all {
		for _, item := range f.items(v) {
			n, ok := asID(item)
			if !ok || len(out) >= maxListItems {
				f.refuse("id_invalid")
				return nil
			}
			if !seen[n] {
				seen[n] = true
				out = append(out, n)
			}
		}
	}
	return out
}

// indexed are the values of name[0], name[1] and so on, by their indexes. Those
// may have gaps: who left out an element still means the others.
func (f *form) indexed(name string) []value {
	at := map[int64][]value{}
	for key, vs := range f.values {
		index, ok := strings.CutPrefix(key, name+"[")
		if !ok {
			continue
		}
		if index, ok = strings.CutSuffix(index, "]"); !ok {
			continue
		}
		if i, ok := wire.ParseInt(index); ok && i >= 0 {
			at[i] = vs
		}
	}
	var out []value
	for _, i := range slices.Sorted(maps.Keys(at)) {
		out = append(out, at[i]...)
	}
	return out
}

// items are the elements of one occurrence of a list parameter: those of a JSON
// array (also one written into a form field), else the value itself, or nothing
// if it is empty.
func (f *form) items(v value) []value {
	switch {
	case v.src != fromString && strings.HasPrefix(v.text, "["):
		list, err := jsonArray(v.text)
		if err != nil {
			f.refuse("body_invalid")
		}
		return list
	case v.src == fromText && v.text == "":
		return nil
	}
	return []value{v}
}

// data reads the free payload of a message as canonical JSON text: a string or
// integer literal, "" if absent or empty. The second result is its size.
func (f *form) data(name string) (string, int) {
	v, ok := f.get(name)
	switch {
	case !ok || v.text == "":
		return "", 0
	case v.src == fromText || v.src == fromString:
		return string(wire.AppendString(nil, v.text)), len(v.text)
	case v.src == fromNumber:
		if n, ok := wire.ParseInt(v.text); ok && n >= -im.MaxID && n <= im.MaxID {
			return v.text, len(v.text)
		}
	}
	f.refuse("data_invalid")
	return "", 0
}

// page reads the size of a page: anything that makes no sense means 50.
func (f *form) pageSize() int {
	v, _ := f.get("pageSize")
	n, ok := wire.ParseInt(v.text)
	if !ok || n <= 0 {
		return 50
	}
	return int(min(n, 200))
}

// cursor reads the page parameter: the text to echo and the id it stands for,
// 0 for the newest page.
func (f *form) cursor() (string, int64) {
	v, _ := f.get("page")
	if absent(v.text) || v.text == "0" {
		return v.text, 0
	}
	n, ok := asID(v)
	if !ok {
		f.refuse("cursor_invalid")
	}
	return v.text, n
}

// platform reads which class of device asks; web if it does not say.
func (f *form) platform() im.Platform {
	v, _ := f.get("platform")
	p, ok := im.ParsePlatform(v.text)
	if !ok {
		f.refuse("platform_invalid")
	}
	return p
}
