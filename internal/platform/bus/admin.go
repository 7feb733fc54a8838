package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// adminLimit bounds one request to nsqd's or nsqlookupd's HTTP side.
const adminLimit = 3 * time.Second

// maxAnswer bounds what is read of one answer.
const maxAnswer = 16 << 20

// adminClient uses no proxy: those of the environment are for the world outside.
var adminClient = &http.Client{Timeout: adminLimit, Transport: &http.Transport{IdleConnTimeout: time.Minute}}

// Topic is what an nsqd knows of a topic.
type Topic struct {
	Name     string
	Depth    int64 // messages kept, all channels' included
	Channels int
	Clients  int // consumers connected to any of its channels
}

// ListTopics asks the nsqd with this HTTP address for its topics.
func ListTopics(ctx context.Context, nsqdHTTPAddr string) ([]Topic, error) {
	var stats struct {
		Topics []struct {
			Name     string `json:"topic_name"`
			Depth    int64  `json:"depth"`
			Channels []struct {
				Depth   int64 `json:"depth"`
				Clients int   `json:"client_count"`
			} `json:"channels"`
		} `json:"topics"`
	}
	q := url.Values{"format": {"json"}, "include_clients": {"false"}, "include_mem": {"false"}}
	if err := get(ctx, nsqdHTTPAddr, "/stats", q, &stats); err != nil {
		return nil, err
	}
	topics := make([]Topic, 0, len(stats.Topics))
	for _, s := range stats.Topics {
		t := Topic{Name: s.Name, Depth: s.Depth, Channels: len(s.Channels)}
		for _, ch := range s.Channels {
			t.Depth += ch.Depth
			t.Clients += ch.Clients
		}
		topics = append(topics, t)
	}
	return topics, nil
}

// DeleteTopic removes a topic with its channels and messages from one nsqd. A
// topic that is not there is no error.
func DeleteTopic(ctx context.Context, nsqdHTTPAddr, topic string) error {
	u := url.URL{Scheme: "http", Host: nsqdHTTPAddr, Path: "/topic/delete", RawQuery: url.Values{"topic": {topic}}.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return fmt.Errorf("bus: delete topic: %w", err)
	}
	res, err := adminClient.Do(req)
	if err != nil {
		return fmt.Errorf("bus: delete topic: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusNotFound {
		return fmt.Errorf("bus: delete topic: %s", res.Status)
	}
	return nil
}

// lookupNodes asks an nsqlookupd for the nsqds it knows.
func lookupNodes(ctx context.Context, addr string) ([]string, error) {
	var answer struct {
		Producers []struct {
			Host string `json:"broadcast_address"`
			Port int    `json:"tcp_port"`
		} `json:"producers"`
	}
	if err := get(ctx, addr, "/nodes", nil, &answer); err != nil {
		return nil, err
	}
	nodes := make([]string, 0, len(answer.Producers))
	for _, p := range answer.Producers {
		nodes = append(nodes, net.JoinHostPort(p.Host, strconv.Itoa(p.Port)))
	}
	return nodes, nil
}

// get fetches JSON.
func get(ctx context.Context, addr, path string, q url.Values, into any) error {
	u := url.URL{Scheme: "http", Host: addr, Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fmt.Errorf("bus: %s: %w", path, err)
	}
	res, err := adminClient.Do(req)
	if err != nil {
		return fmt.Errorf("bus: %s: %w", path, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("bus: %s: %s", path, res.Status)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("bus: %s: %w", path, err)
	}
	return nil
}
