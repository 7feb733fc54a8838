// Package testkit gives tests real servers: MariaDB, Redis, NSQ and etcd,
// started on demand by the test process and gone with it, however it ends.
//
//	dsn := testkit.MySQL(t)       // a fresh database
//	addr := testkit.Redis(t)      // a Redis of its own
//	nsq := testkit.NSQ(t)         // an nsqd of its own
//	endpoints := testkit.Etcd(t)  // an etcd of its own
//
// Nothing has to be running before, and tests of several packages can run at the
// same time. A server that cannot be had fails the test and says the way out;
// nothing is ever skipped. Tests that have to hurt a server use StartMySQL,
// StartRedis, StartNSQ and StartEtcd, which return a handle to kill, pause and
// restart it.
package testkit
