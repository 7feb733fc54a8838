package bench

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"im-services/internal/bench/floor"
	"im-services/internal/bench/stages"
)

// Document is everything one measurement found.
type Document struct {
	Time        time.Time           `json:"time"`
	Machine     Machine             `json:"machine"`
	Comparisons []*Comparison       `json:"comparisons,omitempty"`
	Knees       []*Knee             `json:"knees,omitempty"`
	Stores      []floor.StoreResult `json:"store_floor,omitempty"`
	Buses       []floor.BusResult   `json:"bus_floor,omitempty"`
	Stages      *stages.Table       `json:"stages,omitempty"`
	Growth      []Growth            `json:"growth,omitempty"`
}

// Growth is one cost against one size: it should be flat.
type Growth struct {
	Title  string    `json:"title"`
	X      string    `json:"x"`
	Y      string    `json:"y"`
	Sizes  []float64 `json:"sizes"`
	Values []float64 `json:"values"`
}

// NewDocument returns an empty one.
func NewDocument(m Machine) *Document { return &Document{Time: time.Now(), Machine: m} }

// Add adds a scenario's results and their summary.
func (d *Document) Add(c *Comparison) {
	c.sumUp()
	d.Comparisons = append(d.Comparisons, c)
}

// Write writes bench.json and bench.html into dir.
func (d *Document) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a report for everybody
		return err
	}
	text, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "bench.json"), text, 0o644); err != nil { //nolint:gosec // a report for everybody
		return err
	}
	return d.WriteHTML(filepath.Join(dir, "bench.html"))
}

// ReadDocument reads what Write wrote.
func ReadDocument(file string) (*Document, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the user's own choice
	if err != nil {
		return nil, err
	}
	d := &Document{}
	return d, json.Unmarshal(text, d)
}
