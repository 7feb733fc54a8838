// Command gateway is the edge: the socket, the HTTP API and the files.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
	_ "time/tzdata" // zones also where the system has none

	"google.golang.org/grpc"

	authv1 "im-services/api/proto/auth/v1"
	friendv1 "im-services/api/proto/friend/v1"
	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/catalog"
	"im-services/internal/gateway"
	"im-services/internal/im"
	"im-services/internal/platform/boot"
	"im-services/internal/platform/bus"
	"im-services/internal/platform/config"
	"im-services/internal/platform/discovery"
	"im-services/internal/platform/rpc"
	"im-services/internal/platform/telemetry"
	"im-services/internal/push"
	"im-services/internal/rest"
	"im-services/internal/seeded"
	"im-services/internal/upload"
)

const (
	busChannel = "gateway#ephemeral"
	// busPatience is how long a start waits for the bus: without it the gateway
	// serves, with later pushes.
	busPatience = 3 * time.Second
	// readyPatience is how long it waits for auth before it listens.
	readyPatience = 3 * time.Second
	readyEvery    = 10 * time.Millisecond
)

// safeMethods may be repeated when an instance is unavailable: they change
// nothing, or the same thing again.
var safeMethods = []string{
	"/auth.v1.AuthService/Keys", "/auth.v1.AuthService/Revocations", "/auth.v1.AuthService/GetUsers",
	"/auth.v1.AuthService/SearchUsers",
	"/friend.v1.FriendService/ListRequests", "/friend.v1.FriendService/ListFriends",
	"/friend.v1.FriendService/GetFriend", "/friend.v1.FriendService/FilterFriends",
	"/logic.v1.MessageService/History", "/logic.v1.MessageService/Sync", "/logic.v1.MessageService/MarkRead", "/logic.v1.MessageService/MarkDelivered",
	"/logic.v1.ConversationService/ListSessions", "/logic.v1.ConversationService/Presence", "/logic.v1.ConversationService/UploadUsage",
	"/logic.v1.GroupService/GetGroup", "/logic.v1.GroupService/ListGroups", "/logic.v1.GroupService/ListMembers",
	"/logic.v1.ConnectionService/Disconnect", "/logic.v1.ConnectionService/Acknowledge",
	"/logic.v1.ConnectionService/Watermark", "/logic.v1.ConnectionService/Assert",
}

func main() {
	var (
		path   = flag.String("config", "deploy/config/gateway.yaml", "configuration `file`")
		health = flag.Bool("health", false, "ask the running instance whether it is ready, and exit")
	)
	flag.Parse()
	boot.Main(func(ctx context.Context, b *boot.Boot) error {
		cfg := defaults()
		if err := config.Load(*path, &cfg); err != nil {
			return err
		}
		if *health {
			return telemetry.Probe(ctx, cfg.Telemetry.DebugListen)
		}
		return run(ctx, b, cfg)
	})
}

func run(ctx context.Context, b *boot.Boot, cfg Config) error {
	if cfg.StopTimeout > 0 {
		b.StopTimeout = cfg.StopTimeout
	}
	id := incarnation()
	tel, err := telemetry.New(cfg.Telemetry, "gateway", string(id))
	if err != nil {
		return err
	}
	b.SetLog(tel.Log)
	b.OnClose("telemetry", tel.Close)

	registry, err := discovery.Open(cfg.Discovery, tel.Log)
	if err != nil {
		return err
	}
	b.OnClose("discovery", func(context.Context) error { return registry.Close() })

	dial := func(service string) (*grpc.ClientConn, error) {
		cc, err := rpc.Dial("im:///"+service, registry, tel, rpc.WithTLS(cfg.RPC.TLS), rpc.WithRetry(safeMethods...))
		if err == nil {
			b.OnClose("client of "+service, func(context.Context) error { return cc.Close() })
		}
		return cc, err
	}
	auth, err := dial("auth")
	if err != nil {
		return err
	}
	friend, err := dial("friend")
	if err != nil {
		return err
	}
	logic, err := dial("logic")
	if err != nil {
		return err
	}

	codec, err := push.NewCodec([]byte(cfg.Push.Key.Reveal()))
	if err != nil {
		return err
	}
	var consumer *bus.Consumer
	started := make(chan struct{})
	srv, err := gateway.New(gateway.Deps{
		ID:            id,
		Auth:          authv1.NewAuthServiceClient(auth),
		Friends:       friendv1.NewFriendServiceClient(friend),
		Connections:   logicv1.NewConnectionServiceClient(logic),
		Conversations: logicv1.NewConversationServiceClient(logic),
		DialLogic: func(addr string) (gateway.ClientConn, error) {
			tls := cfg.RPC.TLS
			if tls.ServerName == "" {
				tls.ServerName = "logic"
			}
			return rpc.DialAddr(addr, tel, rpc.WithTLS(tls))
		},
		Codec:     codec,
		Describe:  describe,
		PublicURL: strings.TrimSuffix(cfg.REST.PublicURL, "/"),
		BusConnected: func() bool {
			select {
			case <-started:
				return consumer.Connected()
			default:
				return true
			}
		},
		Log:      tel.Log,
		Registry: tel.Registry,
		Config:   cfg.Gateway,
	})
	if err != nil {
		return err
	}
	b.OnClose("connections", func(context.Context) error { srv.Close(); return nil })
	registry.Watch("logic").OnChange(followLogic(srv.SetLogic))

	consumer, err = bus.NewConsumer(bus.ConsumerConfig{
		Addrs: cfg.Bus.NSQD, LookupAddrs: cfg.Bus.Lookupd, MaxInFlight: cfg.Bus.MaxInFlight,
		Topic: push.Topic(id), Channel: busChannel, OnConnect: srv.BusReconnected, AuthSecret: cfg.Bus.AuthSecret,
	}, srv.HandlePush, tel.Log)
	if err != nil {
		return err
	}
	close(started)
	b.OnClose("bus", func(context.Context) error { return consumer.Close() })

	store, err := upload.Open(ctx, cfg.Upload, tel.Log)
	if err != nil {
		return err
	}
	b.OnClose("uploads", func(context.Context) error { return store.Close() })
	api, err := rest.New(rest.Deps{
		Auth:          authv1.NewAuthServiceClient(auth),
		Friend:        friendv1.NewFriendServiceClient(friend),
		Messages:      logicv1.NewMessageServiceClient(logic),
		Conversations: logicv1.NewConversationServiceClient(logic),
		Groups:        logicv1.NewGroupServiceClient(logic),
		Send:          srv.Send,
		Verify:        srv.Verify,
		SleptSince:    srv.SleptSince,
		Log:           tel.Log,
		Registry:      tel.Registry,
		Uploads:       store,
		Config:        cfg.REST,
	})
	if err != nil {
		return err
	}
	// Who comes before tokens can be judged would be sent away; as long as nobody
	// listens, another gateway gets him.
	patience, cancel := context.WithTimeout(ctx, readyPatience)
	if !waitReady(patience, srv) && ctx.Err() == nil {
		tel.Log.Warn("auth is away: everybody is told so until it answers")
	}
	cancel()
	addr, err := serve(ctx, b, cfg.Gateway, handler(srv, api), tel.Log)
	if err != nil {
		return err
	}
	// Logic pushes to gateways it knows only, and counts who is on others as
	// offline: so it goes on knowing this one until the last connection is closed.
	var registration atomic.Pointer[discovery.Registration]
	b.OnClose("registration", func(ctx context.Context) error {
		if r := registration.Load(); r != nil {
			return r.Deregister(ctx)
		}
		return nil
	})
	b.OnClose("drain", srv.Drain)
	b.Go("announcement", func(ctx context.Context) error {
		r, err := announce(ctx, srv, consumer, registry, tel, id, addr)
		if r == nil {
			return err
		}
		registration.Store(r)
		tel.SetReady(true)
		<-ctx.Done()
		tel.SetReady(false)
		return nil
	})
	tel.Log.Info("gateway is up", "addr", addr)
	return nil
}

// followLogic hands on which replicas of logic there are. That there are none is
// not believed: it is logic or etcd that lost the leases, and replicas that still
// work would lose their lanes. Who is really gone is noticed by his connection.
func followLogic(set func([]gateway.Replica)) func([]discovery.Instance) {
	return func(list []discovery.Instance) {
		if len(list) == 0 {
			return
		}
		replicas := make([]gateway.Replica, len(list))
		for i, inst := range list {
			replicas[i] = gateway.Replica{ID: inst.ID, Addr: inst.Addr}
		}
		set(replicas)
	}
}

// handler puts the socket beside the API. It is no ServeMux, which answers
// unclean paths with a redirect that says nothing about other origins, so that
// browsers show an error of their own. Preflights are the API's, as on any path.
func handler(socket, api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/im/connect" && r.Method != http.MethodOptions {
			socket.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})
}

// serve listens on the public address and on the gateway's own, if there is
// one, and returns the address that names this gateway.
func serve(ctx context.Context, b *boot.Boot, cfg gateway.Config, h http.Handler, log *slog.Logger) (string, error) {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	public := cfg.Listen
	if public == "" {
		public = ":8000"
	}
	listeners := []net.Listener{}
	ln, err := listen(ctx, public, cfg.ReusePort)
	if err != nil {
		return "", err
	}
	listeners = append(listeners, ln)
	if cfg.OwnListen != "" {
		own, err := listen(ctx, cfg.OwnListen, false)
		if err != nil {
			_ = ln.Close()
			return "", err
		}
		listeners = append(listeners, own)
	}
	for _, l := range listeners {
		b.Go("http "+l.Addr().String(), func(ctx context.Context) error {
			stopped := make(chan error, 1)
			stop := context.AfterFunc(ctx, func() {
				ctx, cancel := context.WithTimeout(context.Background(), b.StopTimeout/2)
				defer cancel()
				stopped <- server.Shutdown(ctx)
			})
			err := server.Serve(l)
			switch {
			case !stop(): // told to stop: requests in progress are waited for
				return <-stopped
			case errors.Is(err, http.ErrServerClosed):
				return nil // by way of the other listener
			}
			return err
		})
	}
	return listeners[len(listeners)-1].Addr().String(), nil
}

// waitReady waits until srv can judge tokens, and reports whether it can.
func waitReady(ctx context.Context, srv *gateway.Server) bool {
	for !srv.Ready() {
		select {
		case <-time.After(readyEvery):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// announce makes the gateway known once it can work; nil if ctx ends before.
func announce(
	ctx context.Context, srv *gateway.Server, consumer *bus.Consumer, registry *discovery.Registry,
	tel *telemetry.Telemetry, id im.GatewayID, addr string,
) (*discovery.Registration, error) {
	if !waitReady(ctx, srv) {
		return nil, nil //nolint:nilnil // told to stop
	}
	patience, cancel := context.WithTimeout(ctx, busPatience)
	if err := consumer.WaitConnected(patience); err != nil && ctx.Err() == nil {
		tel.Log.Warn("the bus is away; pushes come by comparing", "err", err)
	}
	cancel()
	return registry.Register(ctx, "gateway", string(id), addr, nil)
}

// describe looks up what a client is told for an error.
func describe(reason string) (code int, text string) {
	e, ok := catalog.Lookup(reason)
	if !ok {
		e, _ = catalog.Lookup(catalog.Internal)
	}
	return e.WS, e.ZH
}

// incarnation names this life of the process.
func incarnation() im.GatewayID {
	if seeded.On(seeded.FixedGatewayID) {
		return "gateway"
	}
	var b [10]byte
	_, _ = rand.Read(b[:]) // never fails
	return im.GatewayID("g" + strings.ToLower(hex.EncodeToString(b[:])))
}
