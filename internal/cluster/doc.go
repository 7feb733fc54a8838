// Package cluster is the launcher: it runs the whole system on one machine with
// nothing installed, in the shape of production: a database, Redis, etcd and NSQ
// as real servers, and two or more of each service behind one balanced port.
//
//	c, err := cluster.Start(ctx, cluster.Options{StateDir: dir})
//	defer c.Stop()
//	c.PublicURL()                      // http://127.0.0.1:<port>, spread over the gateways
//	c.GatewayURL(1)                    // one gateway alone; gateways count from 1
//	c.Process("logic-2").Kill()        // it is back within two seconds
//	c.Process("mysql").Pause()
//
// `make up` (cmd/cluster) and the end-to-end and fault tests use the same code.
// Clusters with different state folders run side by side.
//
// Everything a cluster keeps is in its state folder: data, logs, pid files,
// secrets. Its processes do not outlive the program that started it.
package cluster
