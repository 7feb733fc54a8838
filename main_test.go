package main

import (
	"path/filepath"
	"testing"
)

func TestLoad_TheSampleIsTheDefault(t *testing.T) {
	sample, err := load("config.yaml.test")
	if err != nil {
		t.Fatal(err)
	}
	none, err := load(filepath.Join(t.TempDir(), "missing.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if sample.Port != none.Port || sample.State != none.State || sample.Port != 8000 {
		t.Errorf("the sample says %+v, without a file it is %+v", sample, none)
	}
}
