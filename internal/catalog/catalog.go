// Package catalog is the list of every error a client can be told: the code it
// travels under, what it says in Chinese and in English, why it happens and
// what to do about it. An im.Error names its entry by Reason; a test walks the
// source tree and fails when a reason has no entry or an entry no use.
package catalog

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"golang.org/x/text/language"
	"gopkg.in/yaml.v3"
)

//go:embed errors.yaml
var source []byte

// Entry is what is known about one reason.
type Entry struct {
	// REST is the `code` member of the HTTP envelope; 401, 404 and 405 are also
	// the HTTP status, everything else travels as HTTP 200.
	REST int `yaml:"rest"`
	// WS is the `msg_code` of the socket frame.
	WS int `yaml:"ws"`
	// ZH and EN are the one sentence a person reads.
	ZH string `yaml:"zh"`
	EN string `yaml:"en"`
	// Cause and Fix are for the documentation.
	Cause string `yaml:"cause"`
	Fix   string `yaml:"fix"`
}

// The languages of the texts.
const (
	Chinese = "zh"
	English = "en"
)

// Internal is the reason of everything that has no reason of its own.
const Internal = "internal"

var entries = mustParse(source)

func mustParse(src []byte) map[string]Entry {
	dec := yaml.NewDecoder(bytes.NewReader(src))
	dec.KnownFields(true)
	m := map[string]Entry{}
	if err := dec.Decode(&m); err != nil && !errors.Is(err, io.EOF) {
		panic(fmt.Sprintf("catalog: errors.yaml: %v", err)) // embedded at build time: a test loads it
	}
	return m
}

// Lookup returns the entry of a reason.
func Lookup(reason string) (Entry, bool) {
	e, ok := entries[reason]
	return e, ok
}

// Text returns the sentence for a reason, Chinese unless lang is English. A
// reason without an entry gets the text of an internal error.
func Text(reason, lang string) string {
	e, ok := entries[reason]
	if !ok {
		e = entries[Internal]
	}
	if lang == English {
		return e.EN
	}
	return e.ZH
}

// Language picks the language for an Accept-Language header: English if it is
// wanted more than Chinese, else Chinese, which the web client is written in
// when it does not say so explicitly.
func Language(accept string) string {
	wanted, _, err := language.ParseAcceptLanguage(accept) // by weight, without the unwanted
	if err != nil {
		return Chinese
	}
	for _, tag := range wanted {
		switch base, _ := tag.Base(); base.String() {
		case "zh", "mul": // mul is what * means
			return Chinese
		case "en":
			return English
		}
	}
	return Chinese
}

// Reasons returns all reasons, sorted.
func Reasons() []string { return slices.Sorted(maps.Keys(entries)) }
