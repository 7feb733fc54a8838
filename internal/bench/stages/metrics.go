package stages

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Metrics are the sums over all processes of their metrics, by name; series of
// one name that differ in labels are added up.
type Metrics map[string]float64

// Scrape reads /metrics of every process of debug (name to host:port).
func Scrape(ctx context.Context, debug map[string]string) (Metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out := Metrics{}
	for name, addr := range debug {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
		if err != nil {
			return nil, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, fmt.Errorf("metrics of %s: %w", name, err)
		}
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			out.add(lines.Text())
		}
		_ = resp.Body.Close()
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("metrics of %s: %w", name, err)
		}
	}
	return out, nil
}

// add reads one line of the text format.
func (m Metrics) add(line string) {
	if line == "" || line[0] == '#' {
		return
	}
	i := strings.LastIndexByte(line, ' ')
	if i < 0 {
		return
	}
	v, err := strconv.ParseFloat(line[i+1:], 64)
	if err != nil {
		return
	}
	name, _, _ := strings.Cut(line[:i], "{")
	m[name] += v
}

// Since returns how much each has grown.
func (m Metrics) Since(before Metrics) Metrics {
	out := Metrics{}
	for k, v := range m {
		out[k] = v - before[k]
	}
	return out
}

// Mean is the mean of a histogram's observations, and their number.
func (m Metrics) Mean(histogram string) (mean, count float64) {
	count = m[histogram+"_count"]
	if count <= 0 {
		return 0, 0
	}
	return m[histogram+"_sum"] / count, count
}

// Waits are the means of all histograms of seconds that observed something.
func (m Metrics) Waits() []Wait {
	var out []Wait
	for name := range m {
		h, ok := strings.CutSuffix(name, "_seconds_count")
		if !ok || !strings.HasPrefix(h, "im_") {
			continue
		}
		if mean, n := m.Mean(h + "_seconds"); n > 0 {
			out = append(out, Wait{Name: h + "_seconds", Mean: mean * 1000, Count: n})
		}
	}
	slices.SortFunc(out, func(a, b Wait) int { return strings.Compare(a.Name, b.Name) })
	return out
}
