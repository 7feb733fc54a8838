// Package config reads a service's configuration: strict YAML, then the
// environment, then validation.
//
// A key in the file that the struct does not have is an error, so a misspelt one
// never passes silently. Nothing inside a value is expanded. Every field can be
// overridden by a variable named after its path: database.dsn is
// IM_DATABASE_DSN, telemetry.debug_listen is IM_TELEMETRY_DEBUG_LISTEN. A variable
// that belongs to no field is passed over: services share an environment. Lists
// are written with commas. Secrets may be references (see Secret).
package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// envPrefix starts the name of every overriding variable.
const envPrefix = "IM"

// validator is implemented by configurations that check themselves.
type validator interface{ Validate() error }

// Load fills into, a pointer to a struct that holds the defaults, from the YAML
// file at path and from the environment, and then calls its Validate if it has
// one. An empty path reads the environment only.
func Load(path string, into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("config: Load wants a pointer to a struct, not %T", into)
	}
	if path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("config: %w", err)
		}
		if err := decode(data, into); err != nil {
			return fmt.Errorf("config: %s: %w", path, err)
		}
	}
	if err := override(v.Elem(), envPrefix, os.LookupEnv); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if c, ok := into.(validator); ok {
		if err := c.Validate(); err != nil {
			return fmt.Errorf("config: %s: %w", path, err)
		}
	}
	return nil
}

// decode reads exactly one YAML document; an empty one changes nothing.
func decode(data []byte, into any) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	var more yaml.Node
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return errors.New("more than one document")
	}
	return nil
}

// override walks the struct v and sets each field whose variable is set.
func override(v reflect.Value, prefix string, lookup func(string) (string, bool)) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() {
			continue
		}
		key, inline, skip := yamlKey(f)
		if skip {
			continue
		}
		name := prefix
		if !inline {
			name += "_" + strings.ToUpper(key)
		}
		field := v.Field(i)
		if field.Kind() == reflect.Struct && !isText(field) {
			if err := override(field, name, lookup); err != nil {
				return err
			}
			continue
		}
		text, set := lookup(name)
		if !set {
			continue
		}
		if err := assign(field, text); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// yamlKey tells the key that yaml uses for a field.
func yamlKey(f reflect.StructField) (key string, inline, skip bool) {
	key, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	switch {
	case key == "-":
		return "", false, true
	case strings.Contains(","+opts+",", ",inline,"):
		return "", true, false
	case key == "":
		key = strings.ToLower(f.Name)
	}
	return key, false, false
}

func isText(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	return ok
}

// assign parses text into v.
func assign(v reflect.Value, text string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	if v.Type() == reflect.TypeFor[time.Duration]() {
		d, err := time.ParseDuration(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(d))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return err
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return err
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err != nil {
			return err
		}
		v.SetUint(n)
	case reflect.Float32, reflect.Float64:
		n, err := strconv.ParseFloat(text, v.Type().Bits())
		if err != nil {
			return err
		}
		v.SetFloat(n)
	case reflect.Slice:
		return assignSlice(v, text)
	default:
		return fmt.Errorf("a %s cannot be set from the environment", v.Type())
	}
	return nil
}

// assignSlice splits text at commas; empty text is an empty list.
func assignSlice(v reflect.Value, text string) error {
	var parts []string
	if text != "" {
		parts = strings.Split(text, ",")
	}
	out := reflect.MakeSlice(v.Type(), len(parts), len(parts))
	for i, p := range parts {
		if err := assign(out.Index(i), strings.TrimSpace(p)); err != nil {
			return err
		}
	}
	v.Set(out)
	return nil
}
