// Command friend serves the social graph: friend requests and friendships.
package main

import (
	"context"
	"flag"

	friendv1 "im-services/api/proto/friend/v1"
	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/friend"
	"im-services/internal/platform/boot"
	"im-services/internal/platform/config"
	"im-services/internal/platform/database"
	"im-services/internal/platform/discovery"
	"im-services/internal/platform/rpc"
	"im-services/internal/platform/telemetry"
)

// callers may call what is listed, once they prove their names by certificates.
var callers = rpc.Callers{"gateway": {"/friend.v1.FriendService/"}}

func main() {
	var (
		path    = flag.String("config", "deploy/config/friend.yaml", "configuration `file`")
		migrate = flag.Bool("migrate", false, "bring the database to this version, and exit")
		health  = flag.Bool("health", false, "ask the running instance whether it is ready, and exit")
	)
	flag.Parse()
	boot.Main(func(ctx context.Context, b *boot.Boot) error {
		var cfg Config
		if err := config.Load(*path, &cfg); err != nil {
			return err
		}
		b.OneShot = *health || *migrate
		switch {
		case *health:
			return telemetry.Probe(ctx, cfg.Telemetry.DebugListen)
		case *migrate:
			return applyMigrations(ctx, cfg)
		}
		return run(ctx, b, cfg)
	})
}

func applyMigrations(ctx context.Context, cfg Config) error {
	db, err := database.Open(ctx, cfg.Database.ForMigration())
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	return database.Migrate(ctx, db, friend.Migrations, friend.MigrationsDir, friend.VersionTable)
}

func run(ctx context.Context, b *boot.Boot, cfg Config) error {
	if cfg.StopTimeout > 0 {
		b.StopTimeout = cfg.StopTimeout
	}
	instance := boot.InstanceID()
	tel, err := telemetry.New(cfg.Telemetry, "friend", instance)
	if err != nil {
		return err
	}
	b.SetLog(tel.Log)
	b.OnClose("telemetry", tel.Close)

	db, err := database.Open(ctx, cfg.Database)
	if err != nil {
		return err
	}
	b.OnClose("database", func(context.Context) error { return db.Close() })
	if err := database.CheckVersion(ctx, db, friend.Migrations, friend.MigrationsDir, friend.VersionTable); err != nil {
		return err
	}
	tel.Registry.MustRegister(database.Collector(db, "friend"))

	registry, err := discovery.Open(cfg.Discovery, tel.Log)
	if err != nil {
		return err
	}
	b.OnClose("discovery", func(context.Context) error { return registry.Close() })

	// Opening or closing a conversation and taking ids may be repeated; telling
	// somebody twice may not. A replica that is silent leaves time to ask another.
	logic, err := rpc.Dial("im:///logic", registry, tel, rpc.WithTLS(cfg.RPC.TLS), rpc.WithTimeout(cfg.Friend.LogicPatience()), rpc.WithRetry(
		logicv1.ConversationService_SetPrivate_FullMethodName,
		logicv1.ConversationService_AllocateIDs_FullMethodName,
	))
	if err != nil {
		return err
	}
	b.OnClose("logic client", func(context.Context) error { return logic.Close() })

	server := friend.New(cfg.Friend, db, logicv1.NewConversationServiceClient(logic), tel.Log, tel.Registry)
	b.Go("friend", server.Run)

	cfg.RPC.Callers = callers
	listener, err := rpc.NewServer(tel, cfg.RPC)
	if err != nil {
		return err
	}
	friendv1.RegisterFriendServiceServer(listener.GRPC(), server)
	pulse, err := database.NewPulse(ctx, cfg.Database, tel.Log)
	if err != nil {
		return err
	}
	b.Go("grpc", listener.Run)
	b.Go("pulse", func(ctx context.Context) error { return pulse.Run(ctx, listener.SetServing) })

	registration, err := registry.Register(ctx, "friend", instance, listener.Advertise(), nil)
	if err != nil {
		return err
	}
	b.OnClose("registration", registration.Deregister)
	b.OnClose("readiness", func(context.Context) error { tel.SetReady(false); return nil })
	tel.SetReady(true)
	return nil
}
