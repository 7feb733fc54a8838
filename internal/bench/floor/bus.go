package floor

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"im-services/internal/bench/procs"
	"im-services/internal/platform/bus"
)

// BusResult is what a message through the bus costs.
type BusResult struct {
	Batch     int     `json:"batch"`
	PerSecond float64 `json:"messages_per_s"` // consumed
	// CPU of the bus server per message, in microseconds; 0 if its process is
	// not known.
	CPU float64 `json:"cpu_us_per_message"`
}

// busWindow is how many messages may be under way: far below what nsqd keeps.
const busWindow = 2000

// Bus publishes messages of 300 bytes through the nsqd at addr and consumes
// them, for d, in batches of the given size.
func Bus(ctx context.Context, addr string, nsqd []procs.Process, batch int, d time.Duration) (BusResult, error) {
	res := BusResult{Batch: batch}
	log := slog.New(slog.DiscardHandler)
	topic := fmt.Sprintf("bench.probe%d#ephemeral", time.Now().UnixMilli())
	var got atomic.Int64
	consumer, err := bus.NewConsumer(bus.ConsumerConfig{
		Addrs: []string{addr}, Topic: topic, Channel: "bench#ephemeral", MaxInFlight: 256,
	}, func([]byte) { got.Add(1) }, log)
	if err != nil {
		return res, err
	}
	defer func() { _ = consumer.Close() }()
	wait, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := consumer.WaitConnected(wait); err != nil {
		return res, err
	}
	producer, err := bus.NewProducer(bus.ProducerConfig{Addrs: []string{addr}, PublishTimeout: 5 * time.Second}, log)
	if err != nil {
		return res, err
	}
	defer func() { _ = producer.Close() }()
	bodies := make([][]byte, batch)
	for i := range bodies {
		bodies[i] = make([]byte, 300)
	}
	before := procs.Take(nsqd)
	var sent int64
	for stop := time.Now().Add(d); time.Now().Before(stop) && ctx.Err() == nil; {
		if err := producer.Publish(ctx, topic, bodies...); err != nil {
			return res, err
		}
		sent += int64(batch)
		for sent-got.Load() > busWindow && ctx.Err() == nil {
			time.Sleep(50 * time.Microsecond)
		}
	}
	for end := time.Now().Add(2 * time.Second); got.Load() < sent && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	use := procs.Take(nsqd).Since(before, 0)
	n := float64(got.Load())
	if got.Load() != sent {
		return res, fmt.Errorf("%d of %d messages came through the bus", got.Load(), sent)
	}
	res.PerSecond = n / use.Seconds
	res.CPU = use.Total() * 1e6 / max(n, 1)
	return res, nil
}
