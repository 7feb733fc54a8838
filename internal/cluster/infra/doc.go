// Package infra finds, fetches and runs the servers behind the services: a real
// MySQL-protocol database, Redis, etcd and NSQ, on a machine where nothing is
// installed. The launcher and the tests run the same ones in the same way.
//
// A Unit describes one such server. Nothing here keeps a server alive; that is
// the caller's part (package cluster supervises, package testkit does not).
package infra
