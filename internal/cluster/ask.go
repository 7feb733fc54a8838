package cluster

import (
	"context"
	"net"
)

// Ask asks a running process, from another program, whether it serves: services
// by their debug listener, servers by accepting a connection.
func Ask(ctx context.Context, info Info, name string) error {
	if debug, ok := info.Addrs[name+"/debug"]; ok {
		return ready(debug)(ctx)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", info.Addrs[name])
	if err != nil {
		return err
	}
	return conn.Close()
}
