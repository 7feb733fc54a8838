package cluster

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestMain also plays the services: linked under a service's name this binary is
// a stand-in that listens where the real one would and answers its name.
func TestMain(m *testing.M) {
	name := filepath.Base(os.Args[0])
	for _, s := range services {
		if s.name == name {
			standIn(name)
			return
		}
	}
	os.Exit(m.Run())
}

func standIn(name string) {
	if slices.Contains(os.Args, "-migrate") {
		if os.Getenv("STANDIN_MIGRATE_FAILS") == name {
			fmt.Fprintln(os.Stderr, "no such table")
			os.Exit(1)
		}
		if file := os.Getenv("STANDIN_MIGRATE_SLOWLY"); file != "" && name == "logic" {
			_ = os.WriteFile(file, fmt.Append(nil, syscall.Getpgrp(), " begun"), 0o600)
			time.Sleep(time.Second)
			_ = os.WriteFile(file, []byte("done"), 0o600)
		}
		return
	}
	if os.Getenv("STANDIN_DIES") == name {
		fmt.Fprintln(os.Stderr, "cannot start: reasons")
		os.Exit(1)
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/who", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		_, _ = fmt.Fprint(w, os.Getenv("IM_TELEMETRY_DEBUG_LISTEN"))
	})
	serve := func(variable string) {
		addr := os.Getenv(variable)
		if addr == "" {
			return
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go func() { _ = http.Serve(l, mux) }() //nolint:gosec // a test
	}
	serve("IM_TELEMETRY_DEBUG_LISTEN")
	serve("IM_RPC_LISTEN")
	if os.Getenv("IM_GATEWAY_REUSE_PORT") == "false" {
		serve("IM_GATEWAY_LISTEN")
	}
	serve("IM_GATEWAY_OWN_LISTEN")
	<-terminated
	time.Sleep(20 * time.Millisecond)
}
