package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/cluster"
	"im-services/internal/im"
	"im-services/internal/platform/rpc"
	"im-services/internal/testkit"
)

// A whole system whose processes know each other by certificates: a message
// crosses it, and a process can do what it is for and no more.
func TestMutualTLS_AMessageCrossesAndNamesDecide(t *testing.T) {
	ca := testkit.NewCA(t)
	files := map[string][2]string{}
	for _, kind := range []string{"auth", "friend", "logic", "gateway"} {
		cert, key := ca.Issue(t, kind, time.Hour)
		files[kind] = [2]string{cert, key}
	}
	c, err := cluster.Start(slowly(t), cluster.Options{
		StateDir: t.TempDir(), Progress: t.Output(), Gateways: 2, Logics: 2, Auths: 1, Friends: 1,
		Env: func(_ *cluster.Cluster, name string, env map[string]string) {
			kind, _, _ := strings.Cut(name, "-")
			env["IM_RPC_TLS_CERT"], env["IM_RPC_TLS_KEY"], env["IM_RPC_TLS_CA"] = files[kind][0], files[kind][1], ca.File
		},
	})
	require.NoError(t, err)
	t.Cleanup(c.Stop)
	_, err = cluster.Demo(slowly(t), c.GatewayURL(1), c.GatewayURL(2))
	require.NoError(t, err)

	ask := func(tls rpc.TLSConfig) error {
		tls.ServerName = "logic"
		cc, err := rpc.DialAddr(c.Addr("logic-1"), nil, rpc.WithTLS(tls))
		require.NoError(t, err)
		defer func() { _ = cc.Close() }()
		_, err = logicv1.NewConversationServiceClient(cc).AllocateIDs(soon(t), &logicv1.AllocateIDsRequest{Count: 1})
		return err
	}
	as := func(kind string) rpc.TLSConfig {
		return rpc.TLSConfig{Cert: files[kind][0], Key: files[kind][1], CA: ca.File}
	}
	require.NoError(t, ask(as("friend")))
	require.Equal(t, im.KindInternal, im.KindOf(ask(as("gateway"))), "refused by name")
	plain, err := rpc.DialAddr(c.Addr("logic-1"), nil)
	require.NoError(t, err)
	defer func() { _ = plain.Close() }()
	_, err = logicv1.NewConversationServiceClient(plain).AllocateIDs(soon(t), &logicv1.AllocateIDsRequest{Count: 1})
	require.Equal(t, im.KindUnavailable, im.KindOf(err), "without a certificate nobody is heard")
}
